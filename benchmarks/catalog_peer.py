"""SkyPilot's optimizer on the same rows, in its own process: started by `catalog.py --peer PYTHON`, where PYTHON has it installed.

Reads `vms.csv` (SkyPilot's columns) from the home folder it is given, says which clouds are enabled instead of asking them, and
prints milliseconds of each warm run as JSON. Nothing is launched; no network is needed.
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
    print("PEER " + json.dumps({"version": sky.__version__, "samples": samples}))


if __name__ == "__main__":
    main()
