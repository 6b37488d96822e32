"""A service in each of three regions, on demand."""

import argosy as sky


def everywhere():
    launched = []
    for region in ["us-west-2", "us-east-1", "eu-west-1"]:
        task = sky.Task(name=f"answers-{region}", setup="pip install vllm", run="python answer.py")
        task.set_resources(
            sky.Resources(cloud=sky.AWS(), region=region, accelerators="A100:2", use_spot=False)
        )
        launched.append(sky.launch(task, cluster_name=f"prod-{region}"))
    return launched


launched = everywhere()
