#!/usr/bin/env bash
# Train with several processes, one for each GPU, or on CPUs where there is none:
#     bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines: the same line on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/_processes.sh"

launch "$gpus" "$here/train.py" "$config" --launcher pytorch "$@"
