"""The SDK: `Client` and `AsyncClient` for every endpoint, and the façade that SkyPilot programs know.

>>> import argosy as sky
>>> task = sky.Task(run="python train.py", workdir=".", envs={"EPOCHS": "10"})
>>> task = task.set_resources(sky.Resources(accelerators="A100:1", cpus="4+"))
>>> task.build().envs
{'EPOCHS': '10'}
"""
