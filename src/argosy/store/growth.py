"""Retention: which rows the database deletes, by age and by number, oldest first; inside the caller's
transaction."""

from __future__ import annotations

from typing import Final, NamedTuple

import sqlalchemy as sa

from argosy.model.ids import make_id
from argosy.store import schema

PRUNED_AT_ONCE: Final = 500
#: Budgets and cost reports look back: what was paid for stays so long, whatever the number of rows.
PAID_KEPT_MS: Final = 62 * 86_400_000
_SHRUNK_AT_ONCE: Final = 2000  # pages


class Cut(NamedTuple):
    """What may go: work that ended, and events, before `before_ms`; events up to `events_seq`."""

    before_ms: int
    events_seq: int = 0
    paid_before_ms: int | None = None  # None: as `before_ms`


class Old(NamedTuple):
    """How much may go."""

    workloads: int
    events: int


def find_cut(
    connection: sa.Connection, *, before_ms: int, spare_ms: int, jobs: int, events: int, now_ms: int
) -> Cut:
    """Where to cut so that at most `jobs` ended workloads and `events` events stay, and nothing that ended
    before `before_ms`. For their number nothing goes that is younger than `spare_ms`."""
    work, event = schema.workload, schema.event
    ended = sa.select(work.c.ended_ms).where(sa.text("live = 0")).order_by(work.c.ended_ms.desc())
    beyond_ms = connection.execute(ended.offset(jobs).limit(1)).scalar()
    cut_ms = before_ms if beyond_ms is None else max(before_ms, min(int(beyond_ms) + 1, spare_ms))
    last = int(connection.execute(sa.select(schema.head.c.event_seq)).scalar_one())
    seq = max(0, last - events)
    if seq:  # of those, only what is old enough: the first that is not, from the newest on
        query = sa.select(event.c.at_ms).where(event.c.seq <= seq).order_by(event.c.seq.desc()).limit(1)
        at_ms = connection.execute(query).scalar()
        if at_ms is not None and at_ms >= spare_ms:
            seq = 0
    return Cut(cut_ms, seq, min(cut_ms, now_ms - PAID_KEPT_MS))


def count_old(connection: sa.Connection, cut: Cut) -> Old:
    """How much `prune` would take: workloads without what belongs to them."""
    work, event = schema.workload, schema.event
    rows = sa.select(sa.func.count()).select_from(work).where(_ended(cut), *_unused(cut))
    old = sa.select(sa.func.count()).select_from(event).where(_old_events(cut))
    return Old(connection.execute(rows).scalar_one(), connection.execute(old).scalar_one())


def prune(connection: sa.Connection, cut: Cut) -> int:
    """A part of it, so that commits need not wait for all of it. How many rows went."""
    work = schema.workload
    jobs, child = work.alias(), work.alias("child")
    bound = sa.exists().where(jobs.c.host_id == work.c.id)  # its jobs and children go first
    born = sa.exists().where(sa.text("child.parent_id <> ''"), child.c.parent_id == work.c.id)
    query = sa.select(work.c.id).where(_ended(cut), ~bound, ~born, *_unused(cut)).limit(PRUNED_AT_ONCE)
    ids = connection.execute(query).scalars().all()
    gone = 0
    if ids:
        for table in (schema.node, schema.claim, schema.attempt):
            gone += connection.execute(sa.delete(table).where(table.c.workload_id.in_(ids))).rowcount
        gone += connection.execute(sa.delete(work).where(work.c.id.in_(ids))).rowcount
    # Events come in the order of time: were the first ones all young, none of the others is looked at.
    event, key = schema.event, schema.request_key
    first = sa.select(event).order_by(event.c.seq).limit(PRUNED_AT_ONCE).subquery()
    old = sa.select(first.c.seq).where(sa.or_(first.c.at_ms < cut.before_ms, first.c.seq <= cut.events_seq))
    gone += connection.execute(sa.delete(event).where(event.c.seq.in_(old))).rowcount
    used = sa.select(key.c.key).where(key.c.at_ms < cut.before_ms).limit(PRUNED_AT_ONCE)
    gone += connection.execute(sa.delete(key).where(key.c.key.in_(used))).rowcount
    # Codes that were used or are over: anybody may ask for one. Their ids are in the order of time.
    entry, first_id, last_id = schema.directory, make_id("cod", 0, 0), make_id("cod", cut.before_ms, 0)
    codes = sa.select(entry.c.id).where(entry.c.id.between(first_id, last_id), sa.text("directory.live = 0"))
    gone += connection.execute(sa.delete(entry).where(entry.c.id.in_(codes.limit(PRUNED_AT_ONCE)))).rowcount
    return gone


def shrink(connection: sa.Connection) -> int:
    """Give free pages of a SQLite file back to the disk, a part of them. How many."""
    before = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())
    if before:
        driver = connection.connection.driver_connection
        assert driver is not None
        # Each step of the statement gives one page back, so all of them are fetched.
        driver.execute(f"PRAGMA incremental_vacuum({_SHRUNK_AT_ONCE})").fetchall()
    return before - int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())


def _ended(cut: Cut) -> sa.ColumnElement[bool]:
    return sa.and_(sa.text("workload.live = 0"), schema.workload.c.ended_ms < cut.before_ms)


def _old_events(cut: Cut) -> sa.ColumnElement[bool]:
    return sa.or_(schema.event.c.at_ms < cut.before_ms, schema.event.c.seq <= cut.events_seq)


def _unused(cut: Cut) -> list[sa.ColumnElement[bool]]:
    """Nothing of it lives, no live parent has to know how it ended, and nothing of it is still counted in
    budgets."""
    work, claim = schema.workload, schema.claim
    parent = work.alias("parent")
    live = [
        ~sa.exists().where(table.c.workload_id == work.c.id, table.c.live == 1)
        for table in (schema.attempt, claim, schema.node)
    ]
    live.append(~sa.exists().where(parent.c.id == work.c.parent_id, parent.c.live == 1))
    if cut.paid_before_ms is None:
        return live
    paid = sa.exists().where(
        claim.c.workload_id == work.c.id, claim.c.cost_micro_usd > 0, claim.c.ended_ms >= cut.paid_before_ms
    )
    return [*live, ~paid]
