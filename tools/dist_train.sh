#!/usr/bin/env bash
# Train on this machine with several processes, one a GPU, or on CPUs where there is none:
#   tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# Over several machines, start it on each with NNODES, NODE_RANK (0, 1, …), MASTER_ADDR (the first machine) and PORT set.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
config=$1 processes=$2
shift 2
source "$(dirname "$0")/dist_options.sh"
exec torchrun "${torchrun_options[@]}" "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
