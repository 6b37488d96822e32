"""Queues as people see them: rows with what is borrowed and lent, and a queue explained in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from argosy.api.quota import QueueView
from argosy.model.errors import ArgosyError, suggest
from argosy.model.tenancy import Amounts, Queue, QueueUsage, Tenancy
from argosy.model.units import do, many_do, render_milli
from argosy.scheduler.quota import Quotas
from argosy.scheduler.tenancy_check import parent_of, render_named, say_amount


def say_amounts(amounts: Mapping[str, int]) -> str:
    """Single models are not told again as GPUs.

    >>> say_amounts({"gpus": 2000, "gpus/A100": 2000, "cpus": 500})
    '2 A100 and 0.5 CPUs'
    """
    if amounts.get("gpus") == sum(amount for name, amount in amounts.items() if name.startswith("gpus/")):
        amounts = {name: amount for name, amount in amounts.items() if name != "gpus"}
    words = [say_amount(name, amount) for name, amount in sorted(amounts.items(), key=_order)]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _order(pair: tuple[str, int]) -> tuple[int, str]:
    """GPUs first: they are what people ask about."""
    name = pair[0]
    known = ("gpus", "cpus", "memory", "jobs")
    return (known.index(name) if name in known else 0, name)


def view_queues(
    tenancy: Tenancy, usage: Iterable[QueueUsage], waiting: Mapping[str, int]
) -> tuple[QueueView, ...]:
    """Every queue that is named or in use, parents before children, siblings by name.

    `waiting`: jobs that wait, by the leaf that they count in.
    """
    used = {row.path: row for row in usage}
    named = {queue.path: queue for queue in tenancy.queues}
    paths = {
        above
        for path in (*named, *used, *waiting)
        for above in _with_parents(path.removesuffix("/-"))  # `/-`: jobs of a queue that has children
    }
    views = {
        path: _view(path, named.get(path), used.get(path), _below(path, waiting)) for path in sorted(paths)
    }
    return tuple(_lending(views, path) for path in sorted(views, key=lambda path: path.split("/")))


def _with_parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts)) if path]


def is_below(path: str, above: str) -> bool:
    return not above or path == above or path.startswith(f"{above}/")


def _below(path: str, counts: Mapping[str, int]) -> int:
    return sum(count for leaf, count in counts.items() if is_below(leaf, path))


def _view(path: str, queue: Queue | None, usage: QueueUsage | None, waiting: int) -> QueueView:
    own = queue or Queue(path=path)
    used = usage.used if usage is not None else {}
    return QueueView(
        path=path,
        named=queue is not None,
        used=used,
        guaranteed=own.guaranteed,
        deserved=own.deserved,
        limit=own.limit,
        lend_limit=own.lend_limit,
        running=usage.running if usage is not None else 0,
        waiting=waiting,
        weight_milli=own.weight_milli,
        share_milli=usage.share_milli if usage is not None else 0,
        max_pending=own.max_pending,
        refuse_over_limit=own.refuse_over_limit,
        borrows=_positive({name: used.get(name, 0) - most for name, most in _owned(own).items()}),
    )


def _owned(queue: Queue | QueueView) -> Amounts:
    """What it deserves, where only a guarantee is written at least that."""
    owned = dict(queue.deserved)
    for name, amount in queue.guaranteed.items():
        owned[name] = max(owned.get(name, 0), amount)
    return owned


def _positive(amounts: Mapping[str, int]) -> Amounts:
    return {name: amount for name, amount in amounts.items() if amount > 0}


def siblings_of(views: Mapping[str, QueueView], path: str) -> list[QueueView]:
    above = parent_of(path)
    return [view for other, view in views.items() if other != path and parent_of(other) == above]


def idle_of(view: QueueView) -> Amounts:
    """What it deserves, does not use, and others may have."""
    idle: Amounts = {}
    for name, owned in _owned(view).items():
        kept = view.guaranteed.get(name, 0)
        if name in view.lend_limit:
            kept = max(kept, owned - view.lend_limit[name])
        idle[name] = owned - max(view.used.get(name, 0), kept)
    return _positive(idle)


def borrowed_by(view: QueueView, name: str) -> int:
    """How much of `name` it uses beyond what it deserves; of one that names nothing that is all."""
    return max(0, view.used.get(name, 0) - _owned(view).get(name, 0))


def _lending(views: Mapping[str, QueueView], path: str) -> QueueView:
    view = views[path]
    others = siblings_of(views, path)
    lends = _positive(
        {
            name: min(idle, sum(borrowed_by(other, name) for other in others))
            for name, idle in idle_of(view).items()
        }
    )
    if not lends:
        return view
    return msgspec.structs.replace(view, lends=lends)


# -- in words ---------------------------------------------------------------------------------------


def explain_queue(
    tenancy: Tenancy,
    views: Sequence[QueueView],
    path: str,
    *,
    capacity: Amounts,
    request: Amounts | None = None,
) -> tuple[str, ...]:
    """What the queue has, borrows and lends, who could take it back, and what a request would meet.

    Raises ArgosyError `not-found` for a queue that neither is written down nor in use.
    """
    by_path = {view.path: view for view in views}
    view = by_path.get(path)
    if view is None:
        raise no_queue(path, by_path)
    others = siblings_of(by_path, path)
    lines = [_has(view), *_waits(view)]
    lines += [f"its weight is {render_milli(view.weight_milli)}"] if view.weight_milli != 1000 else []
    lines += _borrowing(view, others)
    lines += _lends(view, others)
    lines += _reclaims(view, others, preemption=tenancy.policy.preemption)
    lines += _above(by_path, path)
    if request:
        lines += _meets(tenancy, views, path, capacity, request)
    return tuple(lines)


def no_queue(path: str, known: Iterable[str]) -> ArgosyError:
    hint = suggest(path, known, otherwise="`argosy quota get` lists them")
    return ArgosyError("not-found", f"there is no queue `{path}`", hint=hint)


def _has(view: QueueView) -> str:
    names = sorted({*_owned(view), *view.limit, *(name for name in view.used if name == "gpus")})
    parts = []
    for name, _ in sorted(((name, 0) for name in names), key=_order):
        used = view.used.get(name, 0)
        text = f"uses {say_amount(name, used)}"
        of = [
            f"{render_named(name, amounts[name])} {word}"
            for word, amounts in (
                ("guaranteed", view.guaranteed),
                ("deserved", view.deserved),
                ("at most", view.limit),
            )
            if name in amounts
        ]
        parts.append(text + (f" ({', '.join(of)})" if of else ""))
    if not parts:
        parts.append("uses " + (say_amounts(view.used) or "nothing"))
    no_quota = "" if names else "; it has no quota of its own"
    return f"`{view.path}` {', '.join(parts)}{no_quota}"


def _waits(view: QueueView) -> list[str]:
    runs = many_do(view.running, "job", "run")
    if not view.waiting:
        return [f"{runs}, none waits"]
    most = f" (at most {view.max_pending} may)" if view.max_pending is not None else ""
    return [f"{runs}, {do(view.waiting, 'wait')}{most}"]


def _borrowing(view: QueueView, others: Sequence[QueueView]) -> list[str]:
    lines = []
    for name, amount in sorted(view.borrows.items(), key=_order):
        lenders = [other.path for other in others if idle_of(other).get(name) or other.lends.get(name)]
        whose = f"; {_listed(lenders)} could want it back" if lenders else ""
        lines.append(f"it borrows {say_amount(name, amount)} beyond what it deserves{whose}")
    return lines


def _lends(view: QueueView, others: Sequence[QueueView]) -> list[str]:
    lines = []
    lendable = idle_of(view)
    for name, owned in sorted(_owned(view).items(), key=_order):
        idle, may_lend = owned - view.used.get(name, 0), lendable.get(name, 0)
        if idle <= 0:
            continue
        text = f"{say_amount(name, idle)} that it deserves {_are(idle)} idle"
        if may_lend < idle:
            text += f", {render_named(name, may_lend) if may_lend else 'none'} of them may be lent"
        elif view.lends.get(name, 0):
            text += " and may be lent"
        users = [other.path for other in others if borrowed_by(other, name)]
        if may_lend and view.lends.get(name, 0):
            lines.append(f"{text}; {_listed(users)} borrow{'s' if len(users) == 1 else ''}")
        else:
            lines.append(f"{text}; nobody borrows now" if may_lend else text)
    return lines


def _are(amount: int) -> str:
    return "is" if amount == 1000 else "are"


def _listed(paths: Sequence[str]) -> str:
    shown = [f"`{path}`" for path in paths[:3]]
    more = len(paths) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _reclaims(view: QueueView, others: Sequence[QueueView], *, preemption: bool) -> list[str]:
    """Who could take back from it, and from whom it could: by the rules of `reclaim.may_reclaim`, without the
    single jobs."""
    lines = []
    for name, amount in sorted(view.borrows.items(), key=_order):
        takers = [other.path for other in others if _owned(other).get(name, 0) > other.used.get(name, 0)]
        if takers and preemption:
            lines.append(
                f"jobs of {_listed(takers)} may end its preemptible jobs to get up to "
                f"{say_amount(name, amount)} back"
            )
    for name, owned in sorted(_owned(view).items(), key=_order):
        free = owned - view.used.get(name, 0)
        givers = [other.path for other in others if borrowed_by(other, name)]
        if free > 0 and givers and preemption:
            lines.append(
                f"it may take back up to {say_amount(name, free)} from preemptible jobs of {_listed(givers)}"
            )
    if not preemption and view.borrows:
        lines.append("nothing is taken back by force: `preemption` is off")
    return lines


def _above(views: Mapping[str, QueueView], path: str) -> list[str]:
    lines = []
    above = parent_of(path)
    while above:
        view = views.get(above)
        if view is not None and view.limit:
            parts = [
                f"{say_amount(name, view.used.get(name, 0))} of {render_named(name, most)}"
                for name, most in sorted(view.limit.items(), key=_order)
            ]
            lines.append(f"above it, `{above}` uses {', '.join(parts)} at most")
        above = parent_of(above)
    return lines


def _meets(
    tenancy: Tenancy, views: Sequence[QueueView], path: str, capacity: Amounts, request: Amounts
) -> list[str]:
    """What a request would meet, by the books that the scheduler keeps itself."""
    books = books_of(tenancy, views, capacity)
    beyond = [name for name in sorted(request, key=lambda name: _order((name, 0))) if name != "jobs"]
    beyond = [name for name in beyond if request[name] > capacity.get(name, 0)] if capacity else []
    what = say_amounts({name: amount for name, amount in request.items() if name != "jobs"}) or "one job"
    never = books.never(path, request)
    if never is not None:
        return [
            f"a request for {what} could never start: `{never.path}` may have "
            f"{say_amount(never.name, never.limit)} at most"
        ]
    if beyond:
        has = " and ".join(
            say_amount(name, capacity[name])
            if capacity.get(name)
            else f"no {say_amount(name, 0).split(' ', 1)[1]}"
            for name in beyond
        )
        return [f"a request for {what} could never start: all owned machines together have {has}"]
    over = books.over(path, request)
    if over is not None:
        return [f"a request for {what} would wait: {over.render()}"]
    lack = books.lack(path, request)
    if lack is not None:
        back = "; it could take some of it back" if _may_take(views, path, request) else ""
        return [f"a request for {what} would wait: {lack.render()}{back}"]
    if books.below_guarantee(path, request):
        return [f"a request for {what} is within what is guaranteed: it starts as soon as machines are free"]
    view = next(each for each in views if each.path == path)
    owned = _owned(view)
    borrowed = _positive(
        {
            name: view.used.get(name, 0) + amount - max(owned[name], view.used.get(name, 0))
            for name, amount in request.items()
            if name in owned
        }
    )
    if borrowed:
        return [
            f"a request for {what} would borrow {say_amounts(borrowed)}: it starts while others lend, and a "
            "preemptible job may be ended when they want it back"
        ]
    if owned:
        return [f"a request for {what} is within what it deserves: it starts as soon as machines are free"]
    return [f"a request for {what} meets no quota: it starts as soon as machines are free and its turn comes"]


def _may_take(views: Sequence[QueueView], path: str, request: Amounts) -> bool:
    by_path = {view.path: view for view in views}
    view = by_path[path]
    return any(
        view.used.get(name, 0) + request.get(name, 0) <= owned
        and any(borrowed_by(other, name) for other in siblings_of(by_path, path))
        for name, owned in _owned(view).items()
        if request.get(name)
    )


def books_of(tenancy: Tenancy, views: Sequence[QueueView], capacity: Amounts) -> Quotas:
    """The scheduler's own books with what is used now."""
    books = Quotas(tenancy, capacity)
    for view in views:
        below = [each for each in views if parent_of(each.path) == view.path]
        own = {
            name: amount - sum(each.used.get(name, 0) for each in below) for name, amount in view.used.items()
        }
        if own := _positive(own):
            books.charge(f"used by {view.path}", view.path, own)
    books.settle()
    return books
