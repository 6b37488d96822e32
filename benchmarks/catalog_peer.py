"""SkyPilot's optimizer on the same rows, in its own process: started by `catalog.py --peer PYTHON`, where
PYTHON has it installed.

Reads `vms.csv` (SkyPilot's columns) from the home folder it is given, says which clouds are enabled instead
of asking them, and prints milliseconds of each warm run as JSON. Nothing is launched; no network is needed.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    runs = int(sys.argv[1])
    import sky
    from sky import check, optimizer

    clouds = [sky.clouds.AWS()]
    check.get_cached_enabled_clouds_or_refresh = lambda *_, **__: clouds
    optimizer.sky_check.get_cached_enabled_clouds_or_refresh = lambda *_, **__: clouds
    six = ("L4", "A10G", "T4", "A100", "H100", "V100")
    requests = {
        "L4:1": [sky.Resources(cloud=clouds[0], accelerators="L4:1")],
        "A100:8, spot": [sky.Resources(cloud=clouds[0], accelerators="A100:8", use_spot=True)],
        "cpus 8+": [sky.Resources(cloud=clouds[0], cpus="8+")],
        "any_of 6 GPUs x {spot, on-demand}": [
            sky.Resources(cloud=clouds[0], accelerators=f"{model}:1", use_spot=spot)
            for model in six
            for spot in (True, False)
        ],
    }
    samples: dict[str, object] = {}
    for name, resources in requests.items():
        times = []
        for _ in range(runs + 1):
            with sky.Dag() as dag:
                task = sky.Task(run="true")
                task.set_resources(set(resources))
            start = time.perf_counter()
            try:
                optimizer.Optimizer.optimize(dag, quiet=True)
            except sky.exceptions.ResourcesUnavailableError as error:
                samples[name] = f"none: {error}"[:200]
                break
            times.append((time.perf_counter() - start) * 1000)
        else:
            samples[name] = times[1:]  # the first one reads the table
    chain = [
        [{"cpus": "8+"}, {"cpus": "16+", "memory": "64+"}],
        [{"accelerators": "L4:1"}, {"accelerators": "A10G:1"}],
        [{"accelerators": "A100:8"}, {"accelerators": "H100:8"}],
        [{"accelerators": "T4:1"}, {"accelerators": "L4:1"}],
    ]
    times = []
    for _ in range(max(2, runs // 2)):
        with sky.Dag() as dag:
            before = None
            for number, candidates in enumerate(chain):
                task = sky.Task(name=f"s{number}", run="true")
                task.set_resources({sky.Resources(cloud=clouds[0], **each) for each in candidates})
                task.set_inputs("s3://data", estimated_size_gigabytes=200)
                task.set_outputs("s3://data", estimated_size_gigabytes=200)
                if before is not None:
                    before >> task
                before = task
        start = time.perf_counter()
        optimizer.Optimizer.optimize(dag, quiet=True)
        times.append((time.perf_counter() - start) * 1000)
    samples["chain of 4 tasks, each any_of 2"] = times
    print("PEER " + json.dumps({"version": sky.__version__, "samples": samples}))


if __name__ == "__main__":
    main()
