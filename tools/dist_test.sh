#!/usr/bin/env bash
# Evaluate on this machine with several processes, one a GPU, or on CPUs where there is none:
#   tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
# Over several machines, start it on each with NNODES, NODE_RANK (0, 1, …), MASTER_ADDR (the first machine) and PORT set.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
config=$1 checkpoint=$2 processes=$3
shift 3
source "$(dirname "$0")/dist_options.sh"
exec torchrun "${torchrun_options[@]}" "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
