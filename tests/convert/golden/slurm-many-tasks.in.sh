#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=h100:8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --signal=SIGUSR1@90
#SBATCH --requeue
#SBATCH --chdir=/scratch/me
export MASTER_PORT=12910
export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)
srun --container-image=nvcr.io/nvidia/pytorch:24.05-py3 --container-mounts=/scratch:/scratch \
  python -u train.py --devices 8
