"""What three clouds offer as managed training, as tasks: machines by name, numbers as variables, data in
buckets."""

import argosy as sky

numbers = {"EPOCHS": 10, "BATCH_SIZE": 32, "LEARNING_RATE": 0.001}
run = "torchrun --nnodes=$ARGOSY_NUM_NODES fit.py --epochs $EPOCHS --batch-size $BATCH_SIZE"
tasks = [
    sky.Task("fit-aws", run=run, envs=numbers, num_nodes=4).set_resources(
        sky.Resources(cloud=sky.AWS(), instance_type="p4d.24xlarge")
    ),
    sky.Task("fit-gcp", run=run, envs=numbers, setup="pip install transformers datasets").set_resources(
        sky.Resources(cloud=sky.GCP(), instance_type="a2-highgpu-8g", accelerators="A100:8")
    ),
    sky.Task("fit-azure", run=run, envs=numbers).set_resources(
        sky.Resources(
            cloud=sky.Azure(), instance_type="Standard_ND96asr_v4", autostop={"idle_minutes": 2, "down": True}
        )
    ),
]
for task in tasks:
    task.set_storage_mounts({"/data/train": "s3://example-train", "/data/val": "s3://example-val"})
