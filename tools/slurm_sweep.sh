#!/usr/bin/env bash
# Fill one study with the workers of a SLURM job array, one training at a time a task. From the folder of tools/:
#   sbatch [--array=0-15] [--gres=gpu:1] [--partition=gpu] [--time=24:00:00] tools/slurm_sweep.sh SWEEP_CONFIG [options of tools/sweep.py]
# The study is a journal file beside the trials, so the folder must be one that all nodes see; or give --storage.
# A task that is pre-empted, or whose time is nearly up, writes a checkpoint of its trial and gives it back; SLURM starts
# the task anew, and whichever worker takes the trial resumes from that checkpoint. PYTHON=… names another interpreter.
#SBATCH --job-name=sweep
#SBATCH --array=0-3
#SBATCH --cpus-per-task=5
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -uo pipefail
if [ $# -lt 1 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
fi
is_late=
srun "${PYTHON:-python}" tools/sweep.py "$@" &
trap 'is_late=1; kill -TERM $!' USR1
trap 'kill -TERM $!' TERM INT
until wait $!; status=$?; ! kill -0 $! 2>/dev/null; do :; done
if [ "$is_late" ] && [ $status -eq 130 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" # for pre-emption SLURM does so itself
fi
exit $status
