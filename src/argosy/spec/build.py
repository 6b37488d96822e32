"""From what was read to the model: candidates of resources, mounts, the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from argosy.model.hooks import TIMEOUT_S, Hook
from argosy.model.notify import ENDS, Notify
from argosy.model.places import READS_TASK
from argosy.model.resources import (
    Autostop,
    Edge,
    Exclusion,
    Infra,
    LocalDisk,
    Networking,
    Recovery,
    Resources,
)
from argosy.model.scheduling import Isolation, Scheduling
from argosy.model.slices import hosts_of_all
from argosy.model.task import DataSize, GitSource, Task
from argosy.model.units import GIB
from argosy.spec.accelerators import Alternatives, canonical_accelerator, misspelt
from argosy.spec.build_data import (
    build_checkpoints,
    build_mounts,
    build_returns,
    build_sync,
    build_volumes,
    json_text,
    texts,
)
from argosy.spec.fields_resources import CANDIDATE
from argosy.spec.findings import Findings, excerpt
from argosy.spec.functions import function_run
from argosy.spec.notation import Deadline, Memory, NodeRange
from argosy.spec.own_jobs import own_job
from argosy.spec.reader import Reader
from argosy.spec.serving import build_serving
from argosy.spec.shapes import Entry, Section

_WHERE = ("cloud", "region", "zone")


def _secret_files(task: Section) -> dict[str, str]:
    """Where secrets are files. That each is one of `secrets` is checked where all of them are known."""
    given = task.get("secret_files", tuple) or ()
    return {str(each.key): str(each.value) for each in given if isinstance(each, Entry)}


def build_task(
    task: Section,
    *,
    envs: dict[str, str],
    secrets: dict[str, str],
    over: Section,
    reader: Reader,
    findings: Findings,
) -> Task:
    """The task, with the values of `over` (flags, for task and resources together) in place of its own."""
    merged = task.under(over)
    resources = task.get("resources", Section) or Section(task.place)
    # A site may be named beside `resources`, for all of them.
    for name in ("location", "edge_config", "networking"):
        if name in task and name not in resources:
            resources.values[name], resources.places[name] = task.values[name], task.places[name]
    candidates, ordered = build_candidates(resources, over, reader, findings)
    own = own_job(task, function_run(task, merged.get("run", str) or "", findings), findings)
    candidates = _driven(own.placed(candidates), driven_config(own.config))
    file_mounts, storage_mounts = build_mounts(merged, reader, findings)
    workdir, git = _workdir(merged, reader)
    grace_s = merged.get("grace", int)
    deadline = merged.get("deadline", Deadline) or Deadline(None, None)
    nodes = _nodes(merged, candidates, findings)
    return Task(
        name=merged.get("name", str),
        workdir=workdir,
        workdir_git=git,
        setup=merged.get("setup", str) or "",
        run=own.run,
        envs=envs,
        secrets=secrets,
        secret_files=_secret_files(merged),
        num_nodes=nodes.most,
        min_nodes=nodes.least if nodes.least < nodes.most else 0,
        resources=candidates,
        ordered=ordered,
        file_mounts=file_mounts,
        storage_mounts=storage_mounts,
        volumes=build_volumes(merged, reader, findings),
        sync=build_sync(merged),
        max_duration_s=merged.get("max_duration", int),
        grace_s=Task().grace_s if grace_s is None else grace_s,
        deadline_s=deadline.after_s,
        deadline_at_ms=deadline.at_ms,
        estimated_s=merged.get("estimated_hours", int),
        progress_milli=merged.get("progress", int) or 0,
        objective=merged.get("objective", str) or Task().objective,
        scheduling=_scheduling(task, over, findings),
        inputs=_data_sizes(merged, "inputs"),
        outputs=_data_sizes(merged, "outputs"),
        returns=build_returns(merged, reader, findings),
        checkpoints=build_checkpoints(merged, findings),
        hooks=_hooks(merged, findings),
        notify=build_notify(merged),
        service=build_serving(task, candidates, findings),
        config=json_text(own.config),
        extra=json_text({name: it for name, it in task.plain.items() if name not in ("config", own.name)}),
        not_executed=tuple(sorted(reader.later)),
    )


def _driven(candidates: tuple[Resources, ...], config: str) -> tuple[Resources, ...]:
    if not config:
        return candidates
    return tuple(msgspec.structs.replace(each, config=config) for each in candidates)


def _nodes(task: Section, candidates: Sequence[Resources], findings: Findings) -> NodeRange:
    """How many nodes. Where all candidates are slices of as many hosts, `num_nodes` counts slices."""
    each = hosts_of_all(wish.accelerator.model if wish.accelerator else None for wish in candidates)
    asked = _asked_nodes(task, findings)
    return NodeRange(asked.least * each, asked.most * each)


def _asked_nodes(task: Section, findings: Findings) -> NodeRange:
    given = task.get("num_nodes", object)
    if isinstance(given, NodeRange):
        if "deadline" in task:
            text = "a task with a `deadline` has a fixed number of nodes: how long it takes depends on it"
            findings.error(task.places["num_nodes"], text, "write one number")
        return given
    return NodeRange(given, given) if isinstance(given, int) else NodeRange(1, 1)


def _hooks(task: Section, findings: Findings) -> tuple[Hook, ...]:
    """In the order in which they were written."""
    section, found = task.get("hooks", Section), []
    for at, given in section.values.items() if section is not None else ():
        if isinstance(given, str):
            found.append(Hook(at=at, run=given))
        elif isinstance(given, Section):
            run, timeout_s = given.get("run", str) or "", given.get("timeout", int)
            if not run.strip() or timeout_s == 0:
                findings.error(
                    given.place, f"hook `{at}` has nothing to run, or no time for it", "write `run`"
                )
            found.append(Hook(at=at, run=run, timeout_s=TIMEOUT_S if timeout_s is None else timeout_s))
    return tuple(found)


def build_notify(section: Section) -> tuple[Notify, ...]:
    """Who is told, in the order in which they were written."""
    found = []
    for each in section.get("notify", tuple) or ():
        if isinstance(each, str):
            found.append(Notify(to=each))
        elif isinstance(each, Section):
            on = each.get("events", tuple) or ENDS
            found.append(Notify(to=each.get("to", str) or "", on=on, secret=each.get("secret", str) or ""))
    return tuple(found)


def driven_config(config: object) -> str:
    """JSON text of the parts of `config` that drivers act on."""
    if not isinstance(config, dict):
        return ""
    return json_text({name: part for name, part in config.items() if name in READS_TASK})


def build_candidates(
    resources: Section, over: Section, reader: Reader, findings: Findings
) -> tuple[tuple[Resources, ...], bool]:
    """The candidates, and whether their order counts."""
    common = resources.without("any_of", "ordered")
    any_of, in_order = resources.values.get("any_of"), resources.values.get("ordered")
    if any_of is not None and in_order is not None:
        findings.error(
            resources.places["ordered"], "`any_of` and `ordered` exclude each other", "keep one of the two"
        )
    listed = any_of if in_order is None else in_order
    variants = [item for item in listed if isinstance(item, Section)] if isinstance(listed, tuple) else []
    ordered = in_order is not None
    found: list[Resources] = []
    for variant in variants or [Section(resources.place)]:
        section = _overlaid(_overlaid(common, variant), over)
        alternatives = section.get("accelerators", Alternatives)
        if alternatives and alternatives.ordered and not ordered:
            if len(variants) > 1:
                findings.error(
                    section.places["accelerators"],
                    "a list of accelerators is in order of preference, and `any_of` has no order",
                    "write a mapping such as `{A100: 1, L4: 1}`, or `ordered` instead of `any_of`",
                )
            ordered = True
        found.extend(_expanded(section, alternatives, reader, findings))
    candidates = tuple(dict.fromkeys(found))
    _check_accelerators(candidates, resources, over, findings)
    return candidates, ordered and len(candidates) > 1


def _check_accelerators(
    candidates: tuple[Resources, ...], resources: Section, over: Section, findings: Findings
) -> None:
    """A name that nobody knows is an error where there is nothing else to take, and else is told."""
    asked = [each.accelerator.model for each in candidates if each.accelerator and each.accelerator.model]
    place = over.places.get("accelerators") or resources.places.get("accelerators") or resources.place
    if asked and len(asked) == len(candidates) and all(map(misspelt, asked)):
        findings.error(
            place,
            f"`accelerators`: there is no accelerator `{excerpt(asked[0])}`",
            f"did you mean `{misspelt(asked[0])}`?",
        )
        return
    for model in dict.fromkeys(asked):
        if canonical_accelerator(model) is None:
            known = misspelt(model)
            findings.warn(
                place,
                f"the accelerator `{model}` is not a known name",
                f"did you mean `{known}`?" if known else "it must be spelled as the infrastructure spells it",
                once=f"accelerator {model}",
            )


def _overlaid(base: Section, over: Section) -> Section:
    """`over` over `base`, where the two spellings of a place replace each other as a whole."""
    if "infra" in over:
        base = base.without("infra", *_WHERE)
    elif any(name in over for name in _WHERE):
        base = base.without("infra")
    if "job_recovery" in over or "spot_recovery" in over:
        base = base.without("job_recovery", "spot_recovery")
    return base.under(over)


def _expanded(
    section: Section, alternatives: Alternatives | None, reader: Reader, findings: Findings
) -> list[Resources]:
    resources = _resources(section, reader, findings)
    if alternatives is None:
        return [resources]
    place = section.places["accelerators"]
    for wish in alternatives.wishes:
        if wish.vendor:
            reader.postpone("resources.accelerators (vendor)", place)
    return [msgspec.structs.replace(resources, accelerator=wish) for wish in alternatives.wishes]


def _instance_type(section: Section) -> str | None:
    """The type as it was given. SkyPilot calls the machine of every TPU `TPU-VM`: that chooses nothing."""
    given = section.get("instance_type", str)
    return None if given and given.upper() == "TPU-VM" else given


def _resources(section: Section, reader: Reader, findings: Findings) -> Resources:
    memory = section.get("memory", Memory) or Memory(None)
    image = section.values.get("image_id")
    plain = dict(section.plain)
    for field in CANDIDATE.fields:
        if field.into or field.name == "accelerator_args":
            plain.pop(field.name, None)
    edge = section.get("edge_config", Section)
    if edge is not None and edge.plain:  # what is not known of it
        plain["edge_config"] = dict(edge.plain)
    networking = section.get("networking", Section)
    if networking is not None and networking.plain:  # what is not known of it
        plain["networking"] = dict(networking.plain)
    disk = section.get("local_disk", LocalDisk)
    if disk is not None and disk.kind:
        reader.postpone("resources.local_disk (kind)", section.places["local_disk"])
    autostop = plain.pop("autostop", None)
    if isinstance(autostop, dict):
        hooks = {name: value for name, value in autostop.items() if name.startswith("hook")}
        if hooks:
            plain["autostop"] = hooks
    if isinstance(image, tuple):
        plain["image_id"] = {str(entry.key): str(entry.value) for entry in image}
        reader.postpone("resources.image_id (by region)", section.places["image_id"])
    if "job_recovery" in section and "spot_recovery" in section:
        findings.error(
            section.places["spot_recovery"],
            "`spot_recovery` is the older name of `job_recovery`, which is given too",
            "keep `job_recovery`",
        )
    return Resources(
        infra=_infra(section, findings),
        instance_type=_instance_type(section),
        memory=memory.bound,
        memory_per_cpu_bytes=memory.per_cpu_bytes,
        accelerator_args=_pairs(section, "accelerator_args"),
        node_disk=disk,
        image_id=image if isinstance(image, str) else None,
        networking=_networking(section),
        labels=_pairs(section, "labels"),
        edge=_edge(section),
        excluded=_exclusions(section, findings),
        autostop=section.get("autostop", Autostop),
        recovery=section.get("job_recovery", Recovery)
        or section.get("spot_recovery", Recovery)
        or Recovery(),
        extra=json_text(plain),
        **_as_they_are(section),
    )


def _as_they_are(section: Section) -> dict[str, Any]:  # Any: what the shapes of these fields read
    """Attributes of the fields whose table says into which they go."""
    return {
        field.into: section.values[field.name]
        for field in CANDIDATE.fields
        if field.into and section.values.get(field.name) is not None
    }


def _scheduling(task: Section, over: Section, findings: Findings) -> Scheduling:
    section = task.get("scheduling", Section) or Section(task.place)
    flags = over.get("scheduling", Section)
    if flags is not None:
        section = section.under(flags)
    topology = section.get("topology", Section) or Section(section.place)
    preemptible = section.get("preemptible", bool) or False
    checkpoint = section.get("checkpoint", bool) or False
    if preemptible and not checkpoint:
        findings.warn(
            section.places["preemptible"],
            "`preemptible` without `checkpoint`: each time it makes room, the job begins again from the "
            "start",
            "save to $ARGOSY_CHECKPOINT_DIR, go on from there, and say `checkpoint: true`",
        )
    return Scheduling(
        queue=section.get("queue", str) or "",
        group=section.get("group", str) or "",
        preemptible=preemptible,
        checkpoint=checkpoint,
        required=topology.get("required", str) or "",
        preferred=topology.get("preferred", str) or "",
        spread=section.get("spread", str) or "",
        isolation=Isolation(section.get("isolation", str) or Isolation.NONE),
        share=section.get("share", str) or Scheduling().share,
        labels=_pairs(section, "labels"),
        tolerations=texts(section, "tolerations"),
    )


def _networking(section: Section) -> Networking:
    names = section.get("networking", Section) or Section(section.place)
    subnet = names.get("subnet_name", str)
    return Networking(
        vpc_name=names.get("vpc_name", str) or "",
        subnet_names=(subnet,) if subnet else texts(names, "subnet_names"),
        security_groups=texts(names, "security_groups"),
    )


def _edge(section: Section) -> Edge:
    limits = section.get("edge_config", Section) or Section(section.place)
    return Edge(
        bandwidth_kbps=limits.get("bandwidth_limit", int) or 0,
        latency_us=limits.get("latency_requirements", int) or 0,
        power_mw=limits.get("power_constraints", int) or 0,
    )


def _pairs(section: Section, name: str) -> tuple[tuple[str, str], ...]:
    value = section.get(name, tuple)
    return tuple((str(key), str(text)) for key, text in value or ())


def _exclusions(section: Section, findings: Findings) -> tuple[Exclusion, ...]:
    """Each entry for each of its regions: places of one entry are all ruled out."""
    found: list[Exclusion] = []
    for each in section.get("not", tuple) or ():
        if not isinstance(each, Section):
            found.append(Exclusion(area=str(each).strip()))
            continue
        infra = (each.get("infra", str) or "").strip()
        regions = texts(each, "regions")
        kind = Exclusion(
            instance_type=each.get("instance_type", str) or "",
            accelerator=each.get("accelerators", str) or "",
        )
        if (kind.instance_type or kind.accelerator) and (regions or "/" in infra):
            findings.error(
                each.place,
                "an entry of `not` names a machine and a region",
                "write two entries, or name the infrastructure only: `{infra: aws, accelerators: T4}`",
            )
        areas = [f"{infra}/{region}" if infra else region for region in regions] or [infra]
        found.extend(
            msgspec.structs.replace(kind, area=area)
            for area in areas
            if area or kind.instance_type or kind.accelerator
        )
    return tuple(dict.fromkeys(found))


def _data_sizes(task: Section, name: str) -> tuple[DataSize, ...]:
    found = []
    for entry in task.get(name, tuple) or ():
        if isinstance(entry, Entry) and isinstance(entry.value, int | float):
            found.append(DataSize(url=str(entry.key), size_bytes=round(entry.value * GIB)))
    return tuple(found)


def _infra(section: Section, findings: Findings) -> Infra:
    infra = section.get("infra", Infra)
    older = [name for name in _WHERE if name in section]
    if infra is None:
        cloud, region, zone = (section.get(name, str) for name in _WHERE)
        return Infra(
            provider=cloud,
            region=None if region in ("*", "") else region,
            zone=None if zone in ("*", "") else zone,
        )
    if older:
        findings.error(
            section.places[older[0]],
            f"`{older[0]}` is an older spelling of `infra`, which is given too",
            "keep `infra: provider/region/zone`",
        )
    return infra


def _workdir(task: Section, reader: Reader) -> tuple[str | None, GitSource | None]:
    value = task.values.get("workdir")
    if isinstance(value, str):
        return value, None
    if not isinstance(value, Section):
        return None, None
    url = value.get("url", str)
    if url is None:
        reader.missing(value, "workdir", "url", "or write the path of a folder: `workdir: .`")
        return None, None
    return None, GitSource(url=url, ref=value.get("ref", str))
