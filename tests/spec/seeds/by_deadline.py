"""Cheaper GPUs when there is time."""

import argosy as sky


def resources_for(hours):
    if hours > 48:
        return sky.Resources(accelerators="V100:4", use_spot=True, spot_recovery="auto")
    if hours > 12:
        return sky.Resources(accelerators="A100:4", use_spot=True)
    return sky.Resources(accelerators="A100:8", use_spot=False)


plans = [
    sky.optimize(sky.Task(run="python fit.py").set_resources(resources_for(hours))) for hours in (72, 24, 6)
]
