"""Who shares a pool, as people write it: a file of queues, groups, presets and policy; and amounts on flags.

    queues:
      acme: {limit: {gpus: 32}}
      acme/vision: {guaranteed: {gpus: 8}, deserved: {gpus: 16}, weight: 2}
    groups:
      training: {nodes: [gpu-*], kinds: [job]}
    presets:
      small: {cpus: 2, memory: 8, accelerators: "A100:0.25"}
    policy: {backfill: easy, min_runtime: 10m}
    sessions: {idle: 2h, gpu_idle: 30m}

What the numbers mean together (children within their parent, guaranteed within deserved within limit) is
checked by `scheduler.quota.check_tenancy`, where the whole tree is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from argosy.model.errors import CODES, ArgosyError, suggest
from argosy.model.tenancy import Amounts, Group, Preset, Queue, Resting, SharePolicy, Tenancy
from argosy.model.units import render_milli
from argosy.spec.build import build_candidates
from argosy.spec.fields_scheduling import TENANCY, parse_amount_name
from argosy.spec.findings import Findings, Place, Warning_, excerpt
from argosy.spec.notation import DAYS, parse_bytes, render_size, render_span
from argosy.spec.reader import Reader
from argosy.spec.render import block_dumper, given, resources_document
from argosy.spec.shapes import Entry, Section
from argosy.spec.source import Pairs, compose

KINDS: Final = ("job", "cluster", "session", "service")
NONE: Final = "none"  # `--limit gpus=none`: no longer
_AMOUNT_FIELDS: Final = ("guaranteed", "deserved", "limit", "lend_limit")
_COUNT_MAX: Final = 10**9  # in thousandths: a million devices


class ParsedTenancy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    tenancy: Tenancy
    warnings: tuple[Warning_, ...] = ()


# -- amounts ----------------------------------------------------------------------------------------


def parse_amount(name: str, text: str) -> int:
    """An amount in the unit of `model.tenancy`: milli-CPU, bytes, milli-GPU, jobs. ValueError says what is
    wrong.

    >>> parse_amount("gpus/A100", "0.5"), parse_amount("memory", "2GB"), parse_amount("jobs", "20")
    (500, 2147483648, 20)
    """
    body = text.strip()
    if name == "memory":
        return 0 if body == "0" else parse_bytes(body)
    if name == "jobs":
        if not re.fullmatch(r"[0-9]{1,9}", body):
            raise ValueError(f"`{excerpt(text)}` is no number of jobs; write for example `jobs=20`")
        return int(body)
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", body) or len(body) > 20:
        what = "CPUs" if name == "cpus" else "GPUs"
        raise ValueError(f"`{excerpt(text)}` is no number of {what}; write for example `{name}=8`")
    milli = round(float(body) * 1000)
    if milli > _COUNT_MAX:
        raise ValueError(f"`{excerpt(text)}` is more than exists")
    return milli


def parse_amounts(text: str, *, flag: str) -> dict[str, int | None]:
    """`gpus=8,gpus/A100=4,memory=512GB`; an amount of `none` takes the entry away. Raises ArgosyError
    `usage`.

    >>> parse_amounts("gpus=8,memory=none", flag="--limit")
    {'gpus': 8000, 'memory': None}
    """
    amounts: dict[str, int | None] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            if not equals:
                raise ValueError(f"`{excerpt(part)}` is no amount; write for example `gpus=8`")
            name = parse_amount_name(name)
            if name in amounts:
                raise ValueError(f"`{name}` is given twice; keep one of the two")
            amounts[name] = None if value.strip().lower() == NONE else parse_amount(name, value)
        except ValueError as error:
            what, _, hint = str(error).partition("; ")
            raise ArgosyError("usage", what, where=flag, hint=hint) from None
    return amounts


def render_amount(name: str, amount: int) -> str:
    """An amount that reads back.

    >>> render_amount("gpus", 1500), render_amount("memory", 1 << 39), render_amount("jobs", 3)
    ('1.5', '512GB', '3')
    """
    if name == "memory":
        return render_size(amount) if amount else "0"
    return str(amount) if name == "jobs" else render_milli(amount)


# -- reading ----------------------------------------------------------------------------------------


def parse_tenancy(text: str, *, source: str = "<yaml>") -> ParsedTenancy:
    """The tenancy of a YAML text. Raises ArgosyError `spec-invalid` (all errors at once, each with
    file:line:column) or `spec-unreadable`. An empty text is the open tree without quotas."""
    try:
        return _parsed(text, source)
    except ArgosyError as error:
        if error.code == "spec-invalid" and error.hint == CODES[error.code].hint:  # that speaks of tasks
            error.hint = "`argosy quota export` writes such a file; docs/pool.md explains every field"
        raise


def _parsed(text: str, source: str) -> ParsedTenancy:
    findings = Findings()
    documents = [node for node in compose(text, source) if not _is_empty(node)]
    if len(documents) > 1:
        raise ArgosyError(
            "spec-invalid",
            f"there are {len(documents)} documents in it",
            where=source,
            hint="write queues, groups, presets and policy in one",
        )
    if not documents:
        return ParsedTenancy(tenancy=Tenancy())
    (node,) = documents
    if not isinstance(node, Pairs):
        findings.error(
            node.place,
            "a file of quotas is a mapping with `queues`, `groups`, `presets`, `policy` and `sessions`",
            "`argosy quota export` shows the present one",
        )
        findings.raise_if_any()
    reader = Reader(findings)
    section = reader.section(node, TENANCY, "")
    policy = section.get("policy", Section)
    tenancy = Tenancy(
        queues=tuple(_queue(entry, findings) for entry in _entries(section, "queues")),
        groups=tuple(_group(entry, findings) for entry in _entries(section, "groups")),
        presets=tuple(_preset(entry, reader, findings) for entry in _entries(section, "presets")),
        policy=_policy(policy) if policy is not None else SharePolicy(),
        sessions=_resting(section),
    )
    findings.raise_if_any()
    return ParsedTenancy(tenancy=tenancy, warnings=findings.warnings)


def _is_empty(node: object) -> bool:
    return getattr(node, "value", "") is None


def _entries(section: Section, name: str) -> list[Entry]:
    return [entry for entry in section.get(name, tuple) or () if isinstance(entry, Entry)]


def _queue(entry: Entry, findings: Findings) -> Queue:
    path = str(entry.key)
    if not isinstance(entry.value, Section):
        return Queue(path=path)
    section = entry.value
    weight = section.values.get("weight", 1)
    weight_milli = round(weight * 1000) if isinstance(weight, int | float) else 0
    if not 1 <= weight_milli <= _COUNT_MAX:
        findings.error(section.places["weight"], "`weight` must be above 0", "1 is what everybody has")
    return Queue(
        path=path,
        guaranteed=_amounts(section, "guaranteed", findings),
        deserved=_amounts(section, "deserved", findings),
        limit=_amounts(section, "limit", findings),
        lend_limit=_amounts(section, "lend_limit", findings),
        weight_milli=weight_milli,
        max_pending=section.get("max_pending", int),
        refuse_over_limit=section.get("over_limit", str) == "refuse",
        sessions=_resting(section),
    )


def _resting(section: Section) -> Resting | None:
    given = section.get("sessions", Section)
    if given is None:
        return None
    return Resting(
        idle_s=given.get("idle", int),
        gpu_idle_s=given.get("gpu_idle", int),
        max_s=given.get("max_time", int),
        then=given.get("then", str) or "",
        firm=bool(given.get("firm", bool)),
    )


def _amounts(section: Section, field: str, findings: Findings) -> Amounts:
    amounts: Amounts = {}
    for entry in _entries(section, field):
        name = str(entry.key)
        try:
            amounts[name] = parse_amount(name, str(entry.value))
        except ValueError as error:
            what, _, hint = str(error).partition("; ")
            findings.error(entry.place, f"`{field}.{name}`: {what}", hint.replace("=", ": "))
    return amounts


def _group(entry: Entry, findings: Findings) -> Group:
    assert isinstance(entry.value, Section)
    section = entry.value
    kinds = _texts(section, "kinds")
    for kind in kinds:
        if kind not in KINDS:
            known = ", ".join(f"`{one}`" for one in KINDS)
            findings.error(
                section.places["kinds"],
                f"`{excerpt(kind)}` is no kind of workload",
                suggest(kind, KINDS, otherwise=f"known are {known}"),
            )
    nodes = _texts(section, "nodes")
    if not nodes:
        findings.error(entry.place, f"the group `{entry.key}` has no nodes", "add `nodes: [gpu-*]`")
    return Group(
        name=str(entry.key),
        nodes=nodes,
        kinds=kinds,
        queues=tuple(queue.strip().strip("/") for queue in _texts(section, "queues")),
    )


def _texts(section: Section, name: str) -> tuple[str, ...]:
    return tuple(str(item) for item in section.get(name, tuple) or ())


def _preset(entry: Entry, reader: Reader, findings: Findings) -> Preset:
    assert isinstance(entry.value, Section)
    section = entry.value
    candidates, _ = build_candidates(section, Section(Place("")), reader, findings)
    if len(candidates) > 1:
        findings.error(
            section.places["accelerators"], "a preset is one wish, these are several", "make a preset of each"
        )
    if candidates[0].preset:
        findings.error(section.places["preset"], "a preset cannot name another", "write out its resources")
    return Preset(name=str(entry.key), resources=candidates[0])


def _policy(section: Section) -> SharePolicy:
    default = SharePolicy()

    def given(name: str, kind: type[int] | type[bool], otherwise: int) -> int:
        value = section.get(name, kind)
        return otherwise if value is None else value

    return SharePolicy(
        preemption=bool(given("preemption", bool, default.preemption)),
        consolidation=bool(given("consolidation", bool, default.consolidation)),
        backfill=section.get("backfill", str) or default.backfill,
        attained_service=bool(given("attained_service", bool, default.attained_service)),
        min_runtime_s=given("min_runtime", int, default.min_runtime_s),
        aging_s=given("aging", int, default.aging_s),
        half_life_s=given("half_life", int, default.half_life_s),
    )


# -- writing ----------------------------------------------------------------------------------------


def render_tenancy(tenancy: Tenancy) -> str:
    """The tenancy as YAML text; `parse_tenancy` reads the same from it.

    >>> print(render_tenancy(Tenancy(queues=(Queue(path="acme", limit={"gpus": 8000}),))), end="")
    queues:
      acme:
        limit:
          gpus: 8
    """
    import yaml  # 20 ms

    document: dict[str, object] = {
        "queues": {queue.path: _queue_document(queue) or None for queue in tenancy.queues},
        "groups": {group.name: given(_group_document(group)) for group in tenancy.groups},
        "presets": {preset.name: resources_document(preset.resources) for preset in tenancy.presets},
        "policy": _policy_document(tenancy.policy),
        "sessions": _resting_document(tenancy.sessions),
    }
    if not given(document):
        return ""
    return yaml.dump(given(document), Dumper=block_dumper(), sort_keys=False, allow_unicode=True, width=4096)


def _plain(text: str) -> object:
    """A number needs no quotes."""
    return int(text) if text.isdigit() else float(text) if re.fullmatch(r"[0-9]+\.[0-9]+", text) else text


def _queue_document(queue: Queue) -> dict[str, object]:
    document: dict[str, object] = {
        field: {name: _plain(render_amount(name, amount)) for name, amount in getattr(queue, field).items()}
        for field in _AMOUNT_FIELDS
    }
    document["weight"] = None if queue.weight_milli == 1000 else _plain(render_milli(queue.weight_milli))
    document["max_pending"] = queue.max_pending
    document["over_limit"] = "refuse" if queue.refuse_over_limit else None
    document["sessions"] = _resting_document(queue.sessions)
    return given(document)


def _resting_document(rule: Resting | None) -> dict[str, object]:
    if rule is None:
        return {}
    times = {"idle": rule.idle_s, "gpu_idle": rule.gpu_idle_s, "max_time": rule.max_s}
    document: dict[str, object] = {
        name: render_span(seconds, DAYS) if seconds else "never"
        for name, seconds in times.items()
        if seconds is not None
    }
    return given(document | {"then": rule.then, "firm": rule.firm or None})


def _group_document(group: Group) -> dict[str, object]:
    return {"nodes": list(group.nodes), "kinds": list(group.kinds), "queues": list(group.queues)}


def _policy_document(policy: SharePolicy) -> dict[str, object]:
    default = SharePolicy()
    spans: dict[str, Callable[[SharePolicy], int]] = {
        "min_runtime": lambda one: one.min_runtime_s,
        "aging": lambda one: one.aging_s,
        "half_life": lambda one: one.half_life_s,
    }
    document: dict[str, object] = {}
    for name in ("preemption", "consolidation", "backfill", "attained_service"):
        if getattr(policy, name) != getattr(default, name):
            document[name] = getattr(policy, name)
    for name, of in spans.items():
        if of(policy) != of(default):
            document[name] = render_span(of(policy), DAYS)
    return document
