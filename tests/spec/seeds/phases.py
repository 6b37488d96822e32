"""Moving over in phases: a plan for each kind of work, as a dry run."""

import argosy as sky

phases = [
    {"workloads": ["trying", "testing"], "weeks": 2},
    {"workloads": ["training", "experiments"], "weeks": 4},
    {"workloads": ["production", "serving"], "weeks": 6},
]
tasks = [sky.Task(name=name, run=f"echo {name}") for phase in phases for name in phase["workloads"]]
plans = [sky.launch(task, cluster_name=task.name, dryrun=True).handle.plan for task in tasks]
