#!/usr/bin/env bash
# Train in a Slurm job:
#     bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS (none) say what it gets.
set -euo pipefail

if [ $# -lt 4 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
work_dir=$4
shift 4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/_processes.sh"

launch_job "$partition" "$job_name" \
    "$here/train.py" "$config" --work-dir "$work_dir" --launcher slurm "$@"
