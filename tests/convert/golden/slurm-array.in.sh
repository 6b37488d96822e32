#!/bin/bash
#SBATCH -J "sweep over seeds"
#SBATCH -p short
#SBATCH -a 1-20%4
#SBATCH -c 8
#SBATCH --mem-per-cpu=4000M
#SBATCH --gpus=1
#SBATCH -t 90
#SBATCH -C "v100|p100"
#SBATCH --open-mode=append
#SBATCH --array=1-10

set -euo pipefail
echo "seed $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_MAX on $SLURMD_NODENAME, $SLURM_CONF"
python train.py --seed "$SLURM_ARRAY_TASK_ID"
#SBATCH --nodes=9
