# What dist_*.sh and slurm_*.sh share: how processes are started.

# launch PROCESSES SCRIPT [arguments]: on this machine, or on this one of several.
launch() {
    local processes=$1
    shift
    local meet=(--standalone) # a free port: several runs on one machine do not collide
    if [ "${NNODES:-1}" != 1 ] || [ -n "${PORT:-}" ]; then
        meet=(
            --nnodes="${NNODES:-1}"
            --node_rank="${NODE_RANK:-0}"
            --master_addr="${MASTER_ADDR:-127.0.0.1}"
            --master_port="${PORT:-29500}"
        )
    fi
    exec "${PYTHON:-python}" -m torch.distributed.run "${meet[@]}" \
        --nproc_per_node="$processes" "$@"
}

# launch_job PARTITION JOB_NAME SCRIPT [arguments]: by Slurm, a task for each GPU.
launch_job() {
    local partition=$1 job_name=$2
    shift 2
    local gpus=${GPUS:-8}
    local per_node=${GPUS_PER_NODE:-8}
    per_node=$((gpus < per_node ? gpus : per_node))
    # SRUN_ARGS holds several arguments: its spaces separate them.
    # shellcheck disable=SC2086
    exec srun \
        --partition="$partition" \
        --job-name="$job_name" \
        --ntasks="$gpus" \
        --ntasks-per-node="$per_node" \
        --gres=gpu:"$per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        "${PYTHON:-python}" -u "$@"
}
