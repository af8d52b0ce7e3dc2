#!/usr/bin/env bash
# Evaluate with several processes, one for each GPU, or on CPUs where there is none:
#     bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# Several machines: the same line on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
shift 3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/_processes.sh"

launch "$gpus" "$here/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
