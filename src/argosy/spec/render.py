"""A task back to YAML. What `parse_task` reads from it is the same task, except that secrets are `***`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from argosy.model.resources import Recovery, Resources
from argosy.model.task import StorageMount, Task
from argosy.spec.accelerators import render_accelerator
from argosy.spec.notation import (
    render_bound_size,
    render_cpus,
    render_infra,
    render_price_number,
    render_size,
)

MASK: Final = "***"
Document = dict[str, object]


def render_task(task: Task) -> str:
    """The task as YAML text, in the order in which people write the fields; secrets as `***`.

    >>> print(render_task(Task(name="x", run="echo hi", secrets={"TOKEN": "t"})), end="")
    name: x
    secrets:
      TOKEN: '***'
    run: echo hi
    """
    import yaml  # 20 ms

    class Dumper(yaml.SafeDumper):
        """Texts of several lines as blocks; no aliases."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    return yaml.dump(task_document(task), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=4096)


def task_document(task: Task) -> Document:
    """The task as plain values with the field names of the YAML; secrets as `***`."""
    extra = _decoded(task.extra)
    document: Document = {
        "name": task.name,
        "workdir": _workdir(task),
        "num_nodes": task.num_nodes if task.num_nodes != 1 else None,
        "resources": _resources(task.resources, ordered=task.ordered),
        "envs": dict(task.envs),
        "secrets": dict.fromkeys(task.secrets, MASK),
        "file_mounts": {mount.target: mount.source for mount in task.file_mounts}
        | {mount.target: _storage(mount) for mount in task.storage_mounts},
        **extra,
        "max_duration": f"{task.max_duration_s}s" if task.max_duration_s is not None else None,
        "grace": f"{task.grace_s}s" if task.grace_s != Task().grace_s else None,
        "config": _decoded(task.config),
        "setup": task.setup,
        "run": task.run,
    }
    return {name: value for name, value in document.items() if value not in (None, "", {}, [])}


def _decoded(text: str) -> Document:
    return msgspec.json.decode(text, type=dict[str, object]) if text else {}


def _workdir(task: Task) -> object:
    git = task.workdir_git
    if git is None:
        return task.workdir
    return {"url": git.url} | ({"ref": git.ref} if git.ref else {})


def _resources(candidates: tuple[Resources, ...], *, ordered: bool) -> Document:
    documents = [_candidate(one) for one in candidates]
    first = documents[0] if documents else {}
    if len(documents) < 2:
        return first
    common = {
        name: value
        for name, value in first.items()
        if all(name in one and one[name] == value for one in documents)
    }
    listed = [{name: value for name, value in one.items() if name not in common} for one in documents]
    return {**common, ("ordered" if ordered else "any_of"): listed}


def _candidate(resources: Resources) -> Document:
    memory: object = None
    if resources.memory is not None:
        memory = render_bound_size(resources.memory)
    elif resources.memory_per_cpu_bytes:
        memory = f"{render_size(resources.memory_per_cpu_bytes)}x"
    price = resources.max_hourly_micro_usd
    document: Document = {
        "infra": render_infra(resources.infra),
        "accelerators": render_accelerator(resources.accelerator) if resources.accelerator else None,
        "accelerator_args": dict(resources.accelerator_args),
        "cpus": render_cpus(resources.cpus) if resources.cpus else None,
        "memory": memory,
        "instance_type": resources.instance_type,
        "use_spot": resources.use_spot,
        "disk_size": render_size(resources.disk_size_bytes) if resources.disk_size_bytes else None,
        "disk_tier": resources.disk_tier,
        "local_disk": resources.local_disk,
        "network_tier": resources.network_tier,
        "ports": list(resources.ports),
        "image_id": resources.image_id,
        "labels": dict(resources.labels),
        "max_hourly_cost": render_price_number(price) if price is not None else None,
        "autostop": _autostop(resources),
        "job_recovery": _recovery(resources.recovery),
        "priority": resources.priority or None,
        "priority_class": resources.priority_class,
        **_decoded(resources.extra),
    }
    return {name: value for name, value in document.items() if value not in (None, "", {}, [])}


def _autostop(resources: Resources) -> object:
    autostop = resources.autostop
    if autostop is None:
        return None
    document: Document = {"idle_minutes": f"{autostop.idle_s}s" if autostop.idle_s is not None else -1}
    if autostop.down:
        document["down"] = True
    if autostop.wait_for != "jobs_and_ssh":
        document["wait_for"] = autostop.wait_for
    return document


def _recovery(recovery: Recovery) -> Document:
    document: Document = {}
    if recovery.strategy:
        document["strategy"] = recovery.strategy
    if recovery.max_restarts_on_errors:
        document["max_restarts_on_errors"] = recovery.max_restarts_on_errors
    if recovery.recover_on_exit_codes:
        document["recover_on_exit_codes"] = list(recovery.recover_on_exit_codes)
    return document


def _storage(mount: StorageMount) -> Document:
    document: Document = {
        "name": mount.name,
        "source": mount.sources[0] if len(mount.sources) == 1 else list(mount.sources),
        "store": mount.store,
        "mode": mount.mode,
        "persistent": None if mount.persistent else False,
        **_decoded(mount.extra),
    }
    return {name: value for name, value in document.items() if value is not None and value != []}
