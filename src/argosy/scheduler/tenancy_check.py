"""Whether a tenancy makes sense, before it is stored; names of amounts; which leaf a workload counts in."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final

from argosy.model.errors import ArgosyError, suggest
from argosy.model.tenancy import Amounts, Queue, Tenancy
from argosy.model.units import render_bytes, render_milli

NAMES: Final = ("cpus", "memory", "gpus", "jobs")  # and gpus/MODEL
KINDS: Final = ("job", "cluster", "session", "service")
BACKFILLS: Final = ("easy", "conservative", "none")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*")
_MODEL: Final = re.compile(r"gpus/[A-Za-z0-9][A-Za-z0-9._-]*")


def parent_of(path: str) -> str:
    return path.rpartition("/")[0]


def render_named(name: str, amount: int) -> str:
    """An amount as people write it, without its name.

    >>> render_named("gpus", 2500), render_named("memory", 3 << 30), render_named("jobs", 4)
    ('2.5', '3 GB', '4')
    """
    if name == "memory":
        return render_bytes(amount)
    return str(amount) if name == "jobs" else render_milli(amount)


def say_amount(name: str, amount: int) -> str:
    """An amount with its unit, as part of a sentence.

    >>> say_amount("gpus/A100", 1500), say_amount("memory", 1 << 39), say_amount("jobs", 1), say_amount("cpus", 1000)
    ('1.5 A100', '512 GB of memory', '1 job', '1 CPU')
    """  # noqa: E501
    kind, _, model = name.partition("/")
    one = amount == (1 if name == "jobs" else 1000)
    unit = {"memory": "of memory", "jobs": "job", "cpus": "CPU", "gpus": "GPU"}.get(kind, kind)
    plural = "" if one or kind == "memory" else "s"
    return f"{render_named(name, amount)} {model or unit + plural}"


def check_tenancy(tenancy: Tenancy) -> None:
    """Refuse a tenancy that contradicts itself: ArgosyError `spec-invalid` with the first fault, all others
    as details."""
    faults = list(_faults(tenancy))
    if faults:
        what, hint = faults[0]
        raise ArgosyError("spec-invalid", what, hint=hint, details=tuple(each for each, _ in faults[1:]))


def _faults(tenancy: Tenancy) -> Iterator[tuple[str, str]]:
    """(fact, fix) of everything that is wrong."""
    for what, names in (
        ("queue", [queue.path for queue in tenancy.queues]),
        ("group", [group.name for group in tenancy.groups]),
        ("preset", [preset.name for preset in tenancy.presets]),
    ):
        for name in sorted(
            {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
        ):
            yield f"{what} {name} is there twice", "keep one of them"
    for queue in tenancy.queues:
        yield from _faults_of_queue(queue)
    yield from _faults_between(tenancy.queues)
    known = {path for queue in tenancy.queues for path in _upwards(queue.path)}
    for group in tenancy.groups:
        if not group.name:
            yield "a group has no name", "give it one"
        for path in group.queues:
            if path not in known:
                yield (
                    f"group {group.name}: there is no queue {path}",
                    suggest(path, known, otherwise="name a queue of `queues`"),
                )
        for kind in group.kinds:
            if kind not in KINDS:
                yield (
                    f"group {group.name}: there is no kind of workload `{kind}`",
                    suggest(kind, KINDS, otherwise=f"the kinds are {', '.join(KINDS)}"),
                )
    yield from _faults_of_policy(tenancy)


def _faults_of_queue(queue: Queue) -> Iterator[tuple[str, str]]:
    at = f"queue {queue.path}"
    if not queue.path or not all(_SEGMENT.fullmatch(part) for part in queue.path.split("/")):
        yield (
            f"`{queue.path}` is not a path of a queue",
            "write names with `/` between them: acme/vision/ann; letters, digits and ._@+- only",
        )
    if queue.weight_milli <= 0:
        yield (
            f"{at}: weight {render_milli(queue.weight_milli)} is not above 0",
            "1 is what a queue has by default",
        )
    if queue.max_pending is not None and queue.max_pending < 0:
        yield f"{at}: max_pending {queue.max_pending} is below 0", "leave it out for no limit"
    for field in ("guaranteed", "deserved", "limit", "lend_limit"):
        amounts: Amounts = getattr(queue, field)
        for name, amount in amounts.items():
            if name not in NAMES and not _MODEL.fullmatch(name):
                yield (
                    f"{at}: {field} names `{name}`, which nothing is counted by",
                    suggest(name, NAMES, otherwise="write cpus, memory, gpus, gpus/MODEL or jobs"),
                )
            elif name == "jobs" and field != "limit":
                yield f"{at}: jobs cannot be {_SAID[field]}", "jobs can only have a `limit`"
            elif amount < 0:
                yield f"{at}: {field} of {name} is {amount}, below 0", "amounts are 0 or more"
    for low, high in (
        ("guaranteed", "deserved"),
        ("deserved", "limit"),
        ("guaranteed", "limit"),
        ("lend_limit", "deserved"),
    ):
        less: Amounts = getattr(queue, low)
        more: Amounts = getattr(queue, high)
        for name in less:
            # what is guaranteed and not named as deserved is deserved all the same; lending needs something
            # to lend
            most = more.get(name, 0 if low == "lend_limit" else None)
            if most is not None and less[name] > most:
                yield (
                    f"{at}: {low} {say_amount(name, less[name])} is more than {high} "
                    f"{say_amount(name, most)}",
                    f"raise {high}, or lower {low}",
                )
    for field in ("guaranteed", "deserved"):
        amounts = getattr(queue, field)
        models = sum(amount for name, amount in amounts.items() if name.startswith("gpus/"))
        if "gpus" in amounts and models > amounts["gpus"]:
            yield (
                f"{at}: {field} of single models is {say_amount('gpus', models)}, more than "
                f"{say_amount('gpus', amounts['gpus'])} in all",
                "raise `gpus`, or leave it out: it is then their sum",
            )


def _faults_between(queues: tuple[Queue, ...]) -> Iterator[tuple[str, str]]:
    """What the children of a queue have guaranteed together fits within what it has guaranteed itself, and
    within its limit."""
    by_path = {queue.path: queue for queue in queues}
    sums: dict[str, Amounts] = {}  # of the children, by path of the parent

    def owned(path: str) -> Amounts:
        """Guaranteed to a queue: what it names, else what its children have together."""
        queue = by_path.get(path)
        below = sums.get(path, {})
        return below if queue is None else {**below, **queue.guaranteed}

    paths = {path for queue in queues for path in _upwards(queue.path)}
    for path in sorted(paths, key=lambda each: (-each.count("/"), each)):
        total = sums.setdefault(parent_of(path), {}) if "/" in path else {}
        for name, amount in owned(path).items():
            total[name] = total.get(name, 0) + amount
    for path in sorted(sums):
        queue = by_path.get(path)
        for name, amount in sorted(sums[path].items()) if queue is not None else ():
            assert queue is not None
            for field, amounts in (("guaranteed", queue.guaranteed), ("limit", queue.limit)):
                if name in amounts and amount > amounts[name]:
                    own = "is itself guaranteed" if field == "guaranteed" else "may use"
                    yield (
                        f"queue {path}: its children are guaranteed {say_amount(name, amount)}, it {own} "
                        f"{render_named(name, amounts[name])}",
                        f"raise {field} of {path}, or lower guaranteed of its children",
                    )


def _faults_of_policy(tenancy: Tenancy) -> Iterator[tuple[str, str]]:
    policy = tenancy.policy
    if policy.backfill not in BACKFILLS:
        yield (
            f"policy: there is no backfill `{policy.backfill}`",
            suggest(policy.backfill, BACKFILLS, otherwise=f"it is one of {', '.join(BACKFILLS)}"),
        )
    for field in ("min_runtime_s", "aging_s"):
        if getattr(policy, field) < 0:
            yield f"policy: {field} {getattr(policy, field)} is below 0", "0 or more seconds"
    if policy.half_life_s <= 0:
        yield f"policy: half_life_s {policy.half_life_s} is not above 0", "7 days are the default"


_SAID: Final = {"guaranteed": "guaranteed", "deserved": "deserved", "lend_limit": "lent"}


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = parent_of(path)


def leaf_of(tenancy: Tenancy, project: str, user: str, wanted: str = "") -> str:
    """Path of the leaf that a workload counts in.

    `wanted`: a queue of the tree that the user named; "": the queue of the project, wherever it stands in the
    tree, or one of that name that nobody has written about. Below it the user has a leaf, unless the path
    ends with the user. ArgosyError: no such queue, or several projects of that name.
    """
    known = {path for queue in tenancy.queues for path in _upwards(queue.path)}
    own, name = _one_segment(project or "default"), _one_segment(user or "nobody")
    if wanted:
        # one's own leaf may be named though nobody wrote about it
        if wanted not in known and not (
            wanted.endswith(f"/{name}") and (parent_of(wanted) in known or parent_of(wanted) == own)
        ):
            raise ArgosyError(
                "not-found",
                f"there is no queue {wanted}",
                hint=suggest(
                    wanted,
                    known,
                    otherwise="`argosy quota get` lists the queues; omit `queue:` to use your own",
                ),
            )
        base = wanted
    elif own in known:
        base = own
    else:
        found = sorted(path for path in known if path.endswith(f"/{own}"))
        top = [path for path in found if path.count("/") == min(each.count("/") for each in found)]
        if len(top) > 1:
            raise ArgosyError(
                "spec-invalid",
                f"project {own} has several queues: {', '.join(top)}",
                hint="name one of them with `scheduling: {queue: …}`",
            )
        base = top[0] if top else own
    return base if base.endswith(f"/{name}") else f"{base}/{name}"


@functools.lru_cache(maxsize=1024)
def _one_segment(name: str) -> str:
    """A name as one part of a path."""
    text = re.sub(r"[^A-Za-z0-9._@+-]", "-", name)
    return text if _SEGMENT.fullmatch(text) else f"_{text}"
