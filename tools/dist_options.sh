# Sourced by dist_train.sh and dist_test.sh, which set `processes`: the options of torchrun, and a fair share of threads.
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / processes > 0 ? cores / processes : 1))}
torchrun_options=(--nproc-per-node "$processes")
if [ -n "${NNODES:-}" ]; then
    torchrun_options+=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?}" --master-addr "${MASTER_ADDR:?}")
    torchrun_options+=(--master-port "${PORT:-29500}")
elif [ -n "${PORT:-}" ]; then
    torchrun_options+=(--master-port "$PORT")
else
    torchrun_options+=(--standalone) # a free port: several runs on one machine do not meet
fi
