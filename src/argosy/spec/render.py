"""A task back to YAML. What `parse_task` reads from it is the same task, except that secrets are `***`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from argosy.model.hooks import TIMEOUT_S, Hook
from argosy.model.notify import ENDS, Notify, is_channel
from argosy.model.resources import Edge, Exclusion, Networking, Recovery, Resources
from argosy.model.scheduling import Scheduling
from argosy.model.slices import hosts_of_all
from argosy.model.task import CheckpointRules, StorageMount, SyncRules, Task, VolumeMount
from argosy.spec.accelerators import render_accelerator
from argosy.spec.fields_resources import CANDIDATE
from argosy.spec.notation import (
    number,
    render_bound_size,
    render_deadline,
    render_infra,
    render_part,
    render_size,
    render_span,
)

if TYPE_CHECKING:
    import yaml

MASK: Final = "***"
Document = dict[str, object]
_PLAIN: Final = Resources()  # what nobody has asked anything of
#: YAML 1.1 takes these for line breaks, which are folded unless they are escaped.
_ODD_BREAKS: Final = ("\r", "\x85", "\u2028", "\u2029")


def render_task(task: Task) -> str:
    """The task as YAML text, in the order in which people write the fields; secrets as `***`.

    >>> print(render_task(Task(name="x", run="echo hi", secrets={"TOKEN": "t"})), end="")
    name: x
    secrets:
      TOKEN: '***'
    run: echo hi
    """
    import yaml  # 20 ms

    document = task_document(task)
    return yaml.dump(document, Dumper=block_dumper(), sort_keys=False, allow_unicode=True, width=4096)


def block_dumper() -> type[yaml.SafeDumper]:
    """Texts of several lines as blocks, no aliases: YAML as people write it. A new class: add to it what you
    need."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Texts of several lines as blocks; no aliases."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        if any(odd in text for odd in _ODD_BREAKS):
            style = '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    return Dumper


def _nodes(task: Task) -> str | int | None:
    """As it is written: slices of several hosts are counted by slices."""
    hosts = hosts_of_all(wish.accelerator.model if wish.accelerator else None for wish in task.resources)
    least, most = task.min_nodes // hosts, task.num_nodes // hosts
    return f"{least}-{most}" if least else _unless(most, 1)


def task_document(task: Task) -> Document:
    """The task as plain values with the field names of the YAML; secrets as `***`."""
    head: Document = {
        "name": task.name,
        "workdir": _workdir(task),
        "num_nodes": _nodes(task),
        "resources": _resources(task.resources, ordered=task.ordered),
        "scheduling": _scheduling(task.scheduling),
        "envs": dict(task.envs),
        "secrets": dict.fromkeys(task.secrets, MASK),
        "secret_files": dict(task.secret_files),
        "file_mounts": {mount.target: mount.source for mount in task.file_mounts}
        | {mount.target: _storage(mount) for mount in task.storage_mounts},
        "volumes": {mount.target: _volume(mount) for mount in task.volumes},
        "sync": _sync(task.sync),
    }
    tail: Document = {
        "max_duration": render_span(task.max_duration_s) if task.max_duration_s is not None else None,
        "grace": f"{task.grace_s}s" if task.grace_s != Task().grace_s else None,
        "deadline": render_deadline(task.deadline_s, task.deadline_at_ms),
        "estimated_hours": _hours(task.estimated_s) if task.estimated_s is not None else None,
        "progress": render_part(task.progress_milli) if task.progress_milli else None,
        "objective": task.objective if task.objective != Task().objective else None,
        "checkpoints": _checkpoints(task.checkpoints),
        "hooks": {hook.at: _hook(hook) for hook in task.hooks},
        "notify": [_notify(wish) for wish in task.notify],
        "config": _decoded(task.config),
        "setup": task.setup,
        "run": task.run,
    }
    # What is kept for later is written as it was, also where it is empty.
    return {**given(head), **_decoded(task.extra), **given(tail)}


def _volume(mount: VolumeMount) -> object:
    if mount.extra or not mount.folder:
        known = {"name": mount.folder or mount.name or None, "sub_path": mount.sub_path or None}
        return {**{name: value for name, value in known.items() if value}, **_decoded(mount.extra)}
    part = f"/{mount.sub_path}" if mount.sub_path else ""
    return f"{mount.folder}{part}" + (":ro" if mount.read_only else "")


def _sync(rules: SyncRules) -> Document:
    return given({"include": list(rules.include), "exclude": list(rules.exclude), "mode": rules.mode})


def _checkpoints(rules: CheckpointRules) -> Document:
    every = render_span(rules.keep_every_s) if rules.keep_every_s else None
    return given({"to": rules.to, "keep_last": _unless(rules.keep_last, 1), "keep_every": every})


def _unless(value: int, default: int) -> int | None:
    return value if value != default else None


def _hook(hook: Hook) -> Document | str:
    return hook.run if hook.timeout_s == TIMEOUT_S else {"run": hook.run, "timeout": f"{hook.timeout_s}s"}


def _notify(wish: Notify) -> Document | str:
    to = wish.to if is_channel(wish.to) else MASK
    if wish.on == ENDS and not wish.secret:
        return to
    return given({"to": to, "events": list(wish.on), "secret": MASK if wish.secret else ""})


def given(document: Document) -> Document:
    """Without what is empty."""
    return {name: value for name, value in document.items() if value not in (None, "", {}, [])}


def _hours(seconds: int) -> int | float:
    """A number that reads back as the same seconds."""
    return seconds // 3600 if seconds % 3600 == 0 else seconds / 3600


def _decoded(text: str) -> Document:
    return msgspec.json.decode(text, type=dict[str, object]) if text else {}


def _workdir(task: Task) -> object:
    git = task.workdir_git
    if git is None:
        return task.workdir
    return {"url": git.url} | ({"ref": git.ref} if git.ref else {})


def _resources(candidates: tuple[Resources, ...], *, ordered: bool) -> Document:
    documents = [resources_document(one) for one in candidates]
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


def resources_document(resources: Resources) -> Document:
    """One candidate as plain values with the field names of the YAML."""
    memory: object = None
    if resources.memory is not None:
        memory = render_bound_size(resources.memory)
    elif resources.memory_per_cpu_bytes:
        memory = f"{render_size(resources.memory_per_cpu_bytes).removesuffix('GB')}x"
    special: Document = {
        "infra": render_infra(resources.infra),
        "accelerators": render_accelerator(resources.accelerator) if resources.accelerator else None,
        "accelerator_args": dict(resources.accelerator_args),
        "memory": memory,
        "instance_type": resources.instance_type,
        "local_disk": number(resources.node_disk.render()) if resources.node_disk else resources.local_disk,
        "image_id": resources.image_id,
        "networking": _networking(resources.networking),
        "labels": dict(resources.labels),
        "not": [_exclusion(each) for each in resources.excluded],
        "edge_config": _edge(resources.edge),
        "autostop": _autostop(resources),
        "job_recovery": _recovery(resources.recovery),
    }
    document: Document = {}
    for field in CANDIDATE.fields:  # in the order of the table
        if field.name in special:
            document[field.name] = special[field.name]
        elif field.into:
            value = getattr(resources, field.into)
            if value != getattr(_PLAIN, field.into):
                document[field.name] = value if field.show is None else field.show(value)
    document = given(document)
    for name, value in _decoded(resources.extra).items():
        known = document.get(name)
        document[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return document


def _scheduling(scheduling: Scheduling) -> Document:
    default = Scheduling()
    return given(
        {
            "queue": scheduling.queue,
            "group": scheduling.group,
            "preemptible": scheduling.preemptible or None,
            "checkpoint": scheduling.checkpoint or None,
            "topology": given({"required": scheduling.required, "preferred": scheduling.preferred}),
            "spread": scheduling.spread,
            "isolation": None if scheduling.isolation is default.isolation else scheduling.isolation.value,
            "share": None if scheduling.share == default.share else scheduling.share,
            "labels": dict(scheduling.labels),
            "tolerations": list(scheduling.tolerations),
        }
    )


def _networking(networking: Networking) -> Document:
    subnets = list(networking.subnet_names)
    return given(
        {
            "vpc_name": networking.vpc_name,
            "subnet_name": subnets[0] if len(subnets) == 1 else "",
            "subnet_names": subnets if len(subnets) > 1 else [],
            "security_groups": list(networking.security_groups),
        }
    )


def _edge(edge: Edge) -> Document:
    def amount(value: int, large: str, small: str, sign: str = "") -> str:
        if not value:
            return ""
        return f"{sign}{value // 1000}{large}" if value % 1000 == 0 else f"{sign}{value}{small}"

    return given(
        {
            "bandwidth_limit": amount(edge.bandwidth_kbps, "Mbps", "kbps"),
            "latency_requirements": amount(edge.latency_us, "ms", "us", "<"),
            "power_constraints": amount(edge.power_mw, "W", "mW"),
        }
    )


def _exclusion(exclusion: Exclusion) -> object:
    named = given(
        {
            "infra": exclusion.area,
            "instance_type": exclusion.instance_type,
            "accelerators": exclusion.accelerator,
        }
    )
    return exclusion.area if list(named) == ["infra"] else named


def _autostop(resources: Resources) -> object:
    autostop = resources.autostop
    if autostop is None:
        return None
    idle_s = -60 if autostop.idle_s is None else autostop.idle_s
    document: Document = {"idle_minutes": f"{idle_s}s" if idle_s % 60 else idle_s // 60}
    if autostop.down:
        document["down"] = True
    if autostop.wait_for != "jobs_and_ssh":
        document["wait_for"] = autostop.wait_for
    if autostop.max_s is not None:
        document["max_duration"] = render_span(autostop.max_s)
    return document


def _recovery(recovery: Recovery) -> Document:
    document: Document = {}
    if recovery.strategy:
        document["strategy"] = recovery.strategy
    if recovery.max_restarts_on_errors:
        document["max_restarts_on_errors"] = recovery.max_restarts_on_errors
    if recovery.recover_on_exit_codes:
        document["recover_on_exit_codes"] = list(recovery.recover_on_exit_codes)
    if recovery.at_most_once is not None:
        document["at_most_once"] = recovery.at_most_once
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
