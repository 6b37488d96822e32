#!/bin/bash -l
#SBATCH --job-name=llama-pretrain
#SBATCH --partition=gpu-long
#SBATCH --account=nlp-lab --qos=high
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:a100:4
#SBATCH --cpus-per-task=32
#SBATCH --mem=240G            # per node
#SBATCH --time=2-12:00:00
#SBATCH --constraint=nvlink
#SBATCH --output=logs/%x-%j.out
#SBATCH --error=logs/%x-%j.err
#SBATCH --mail-type=END,FAIL
#SBATCH --mail-user=someone@example.org
#SBATCH --export=ALL,NCCL_DEBUG=INFO,WANDB_API_KEY=abc123secret
#SBATCH --exclusive

module purge
module load cuda/12.4

nodes=( $( scontrol show hostnames "$SLURM_JOB_NODELIST" ) )
head_node=${nodes[0]}
head_node_ip=$(srun --nodes=1 --ntasks=1 -w "$head_node" hostname --ip-address)
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

srun torchrun \
  --nnodes $SLURM_NNODES \
  --nproc_per_node $SLURM_GPUS_ON_NODE \
  --rdzv_id $SLURM_JOB_ID \
  --rdzv_backend c10d \
  --rdzv_endpoint $head_node_ip:29500 \
  pretrain.py --run "$SLURM_JOB_NAME"
