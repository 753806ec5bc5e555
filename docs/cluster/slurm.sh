#!/bin/bash
# sbatch docs/cluster/slurm.sh: two machines of eight GPUs, one torchrun on each.
#SBATCH --job-name=video-gen
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
set -eu
: "${RUN:=runs/large}" "${CONFIG:=configs/yours.yaml}"
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
launch="torchrun --nnodes=$SLURM_JOB_NUM_NODES --nproc-per-node=8 --max-restarts=3
    --rdzv-backend=c10d --rdzv-id=$SLURM_JOB_ID --rdzv-endpoint=$host:29500"

srun $launch -m -- video_gen.training.cluster_check "$(dirname "$RUN")"

# Five minutes before the end Slurm sends TERM: the step is finished, saved, and the job queued again, to go on from there.
trap 'kill -TERM "$training"; wait "$training" || true; scontrol requeue "$SLURM_JOB_ID"' TERM
srun $launch -m -- video_gen.train diffusion "$CONFIG" --run "$RUN" &
training=$!
wait "$training"
