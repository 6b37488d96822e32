"""The same GPUs in three clouds."""

import argosy as sky


def candidates():
    return [
        sky.Resources(cloud=sky.AWS(), accelerators="A100:8"),
        sky.Resources(cloud=sky.GCP(), accelerators="A100:8"),
        sky.Resources(cloud=sky.Azure(), accelerators="A100:8"),
    ]


task = sky.Task().set_resources(candidates())
plan = sky.optimize(task)
