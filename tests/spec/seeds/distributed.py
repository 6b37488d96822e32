"""One task, flexible about its GPUs, launched on a named cluster."""

import argosy as sky

task = sky.Task(
    name="fit-on-many",
    setup="pip install -r requirements.txt",
    run="python -m torch.distributed.launch fit.py",
)
task.set_resources(
    sky.Resources(accelerators="A100:8", memory="500+", disk_size=1000, use_spot=True, spot_recovery="auto")
)
launched = sky.launch(task, cluster_name="many")
