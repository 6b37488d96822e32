"""Reads: live rows from memory, all others from the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from argosy.model.budget import Budget, budget_id
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.kinds import numbered_kinds, running_kinds
from argosy.model.kinds.cluster import CLUSTER
from argosy.model.rows import Attempt, Claim, Event, Node, Row, Workload
from argosy.store import accounts, schema
from argosy.store.commits import Request, Writer
from argosy.store.database import Database
from argosy.store.lane import Lane
from argosy.store.schema import read_any, read_row, was_there
from argosy.store.secrets import Vault
from argosy.store.snapshot import Snapshot

if TYPE_CHECKING:
    from argosy.model.audit import Record

R = TypeVar("R", bound=schema.Stored)
T = TypeVar("T")

ANSWER_S: Final = 2.0  # how long who only looks waits for a database elsewhere


class Reads:
    """The reading half of `Store`; every method may raise what that says."""

    _database: Database
    _vault: Vault
    _writer: Writer
    clock: Clock
    _lane: Lane[Request, tuple[schema.Stored, ...]]

    @property
    def seq(self) -> int:
        """The last commit seen. When it is the same, nothing changed: a key for caches."""
        return self._writer.snapshot.seq

    async def snapshot(self) -> Snapshot:
        """All live rows at one moment. Costs nothing when nothing changed, else what changed."""
        if not self._database.is_shared:
            return self._writer.snapshot
        return await self._lane.call(lambda: self._database.run(self._writer.refresh))

    async def recent(self, age_ms: int) -> Snapshot:
        """All live rows, as they were at most `age_ms` ago; while a database elsewhere does not answer, what
        was read last."""
        if not self._database.is_shared or self.clock.now_ms() - self._writer.read_ms < age_ms:
            return self._writer.snapshot
        return (await self.last_known())[0]

    async def last_known(self) -> tuple[Snapshot, int]:
        """As `snapshot`; while a database elsewhere does not answer what was read last, and when (else 0)."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self.snapshot(), 0
        except TimeoutError:
            pass
        except ArgosyError as error:
            if error.code != "store-busy":
                raise
        return self._writer.snapshot, self._writer.read_ms

    async def load(self, id: str) -> Row | None:
        """The row of any kind with this id, also a finished one."""
        if not self._database.is_shared and (row := self._writer.snapshot.row(id)) is not None:
            return row
        return await self._read(lambda c: read_any(c, id))

    async def load_jobs(
        self,
        *,
        host_id: str | None,
        live: bool = False,
        limit: int = 1000,
        after: str | None = None,
        parts: bool = False,
        projects: frozenset[str] | None = None,
    ) -> list[Workload]:
        """Jobs and groups on the nodes of a workload (None: managed ones), newest first; `after`: the last id
        of the page before. `parts`: the jobs of groups instead of the groups. `projects`: only of these."""
        table = schema.workload
        if parts:
            query = sa.select(table.c.body).where(table.c.kind.in_(running_kinds()))
        else:
            query = sa.select(table.c.body).where(
                table.c.kind.in_(numbered_kinds()), sa.text("workload.parent_id = ''")
            )
        if live:  # word for word, for the index of those; not for that of a host's jobs, most of which ended
            query = query.where(sa.text("live = 1"), table.c.host_id.concat("") == (host_id or ""))
        else:
            query = query.where(table.c.host_id == (host_id or ""))
        if projects is not None:
            query = query.where(table.c.project.in_(sorted(projects)))
        if after is not None:
            number = sa.select(table.c.number).where(table.c.id == after).scalar_subquery()
            # a row that is no longer there: ids sort by time, like numbers
            query = query.where(
                sa.case(
                    (number.is_(None), table.c.id < after),
                    else_=sa.tuple_(table.c.number, table.c.id) < sa.tuple_(number, sa.literal(after)),
                )
            )
        query = query.order_by(table.c.number.desc(), table.c.id.desc()).limit(limit)
        return await self._load(Workload, query)

    async def load_runs(self, name: str, *, within: int = 5000, limit: int = 50) -> list[Workload]:
        """Jobs of this name, bound to clusters or managed, among the `within` last that ended; newest
        first."""
        table = schema.workload
        ended = (
            sa.select(table.c.id).where(sa.text("live = 0")).order_by(table.c.ended_ms.desc()).limit(within)
        )
        query = sa.select(table.c.body).where(
            table.c.id.in_(ended), table.c.name == name, table.c.kind.in_(running_kinds())
        )
        return await self._load(
            Workload, query.order_by(table.c.ended_ms.desc(), table.c.id.desc()).limit(limit)
        )

    async def find_cluster(
        self, name: str, *, project: str = "default", finished: bool = False
    ) -> Workload | None:
        """The live cluster of this name; with `finished`, when there is none, the last that had it."""
        return await self.find_named(CLUSTER.name, name, project=project, finished=finished)

    async def find_named(
        self, kind: str, name: str, *, project: str = "default", finished: bool = False
    ) -> Workload | None:
        """As `find_cluster`, of any kind whose names are unique."""
        if not self._database.is_shared:
            found = self._writer.snapshot.find_named(kind, name, project)
            if found is not None or not finished:
                return found
        table = schema.workload
        query = sa.select(table.c.body).where(
            sa.text("named = 1"), table.c.kind == kind, table.c.project == project, table.c.name == name
        )
        if not finished:
            query = query.where(table.c.live == 1)
        rows = await self._load(Workload, query.order_by(table.c.live.desc(), table.c.id.desc()).limit(1))
        return rows[0] if rows else None

    async def find_job(self, host_id: str | None, number: int) -> Workload | None:
        """The job or group with this number, also a finished one; not the jobs of groups."""
        if not self._database.is_shared and (job := self._writer.snapshot.job(host_id, number)) is not None:
            return job
        table = schema.workload
        query = sa.select(table.c.body).where(
            table.c.host_id == (host_id or ""),
            table.c.number == number,
            table.c.kind.in_(numbered_kinds()),
            sa.text("workload.parent_id = ''"),
        )
        rows = await self._load(Workload, query.limit(1))
        return rows[0] if rows else None

    async def load_children(self, parent_id: str) -> list[Workload]:
        """All that share the life of a workload, by number; of one number in the order in which they were
        made."""
        table = schema.workload
        query = sa.select(table.c.body).where(
            sa.text("workload.parent_id <> ''"), table.c.parent_id == parent_id
        )
        return await self._load(Workload, query.order_by(table.c.number, table.c.id))

    async def load_attempts(self, workload_id: str) -> list[Attempt]:
        """All attempts, by number."""
        table = schema.attempt
        query = sa.select(table.c.body).where(table.c.workload_id == workload_id)
        return await self._load(Attempt, query.order_by(table.c.number, table.c.id))

    async def load_by_id(self, kind: type[R], ids: Iterable[str]) -> dict[str, R]:
        """These rows, by id; without those that are not there any more."""
        table, wanted, found = schema.table_of(kind), list(ids), list[R]()
        for start in range(0, len(wanted), 500):
            some = wanted[start : start + 500]
            found += await self._load(kind, sa.select(table.c.body).where(table.c.id.in_(some)))
        return {row.id: row for row in found}

    async def load_past_attempts(
        self, host_id: str, *, since_ms: int = 0, limit: int = 1000
    ) -> list[Attempt]:
        """Attempts of jobs on the nodes of a workload, there at `since_ms` or later; newest first."""
        table, jobs = schema.attempt, schema.workload
        query = (
            sa.select(table.c.body)
            .join(jobs, jobs.c.id == table.c.workload_id)
            .where(jobs.c.host_id == host_id, was_there(jobs, since_ms))
        )
        return await self._load(Attempt, query.order_by(table.c.id.desc()).limit(limit))

    async def load_claims(self, *, since_ms: int = 0, limit: int | None = None) -> list[Claim]:
        """Claims that were there at `since_ms` or later, oldest first. `limit`: no more than the newest."""
        table = schema.claim
        query = sa.select(table.c.body).where(was_there(table, since_ms))
        if limit is None:
            return await self._load(Claim, query.order_by(table.c.id))
        return (await self._load(Claim, query.order_by(table.c.id.desc()).limit(limit)))[::-1]

    async def load_clusters(self, *, since_ms: int = 0) -> list[Workload]:
        """Clusters that were there at `since_ms` or later, oldest first."""
        return await self.load_named(CLUSTER.name, since_ms=since_ms)

    async def load_named(self, kind: str, *, since_ms: int = 0) -> list[Workload]:
        """As `load_clusters`, of any kind whose names are unique."""
        table = schema.workload
        query = sa.select(table.c.body).where(
            sa.text("named = 1"), table.c.kind == kind, was_there(table, since_ms)
        )
        return await self._load(Workload, query.order_by(table.c.id))

    async def load_nodes(self, claim_id: str) -> list[Node]:
        """All nodes of the claim, by index."""
        table = schema.node
        rows = await self._load(Node, sa.select(table.c.body).where(table.c.claim_id == claim_id))
        return sorted(rows, key=lambda row: (row.index, row.id))

    async def load_events(
        self, *, subject: str | None = None, after: int | None = 0, limit: int = 1000
    ) -> list[Event]:
        """Events in the order of their commits; `after`: the `seq` that ended the last page, None: the newest
        ones."""
        table = schema.event
        query = sa.select(table).where(table.c.seq > (after or 0))
        if subject is not None:
            query = query.where(table.c.subject == subject)
        query = query.order_by(table.c.seq.desc() if after is None else table.c.seq).limit(limit)
        found = await self._read(
            lambda c: [
                Event(seq=row.seq, at_ms=row.at_ms, subject=row.subject, code=row.code, text=row.text)
                for row in c.execute(query)
            ]
        )
        return found[::-1] if after is None else found

    async def load_secrets(self, workload_id: str) -> dict[str, str]:
        """Values by name; none once the workload is finished. Raises `forbidden` without their key."""
        return await self._read(lambda c: self._vault.load(c, workload_id))

    async def load_secrets_of(self, job: Workload, names: Iterable[str]) -> dict[str, str]:
        """Values of secrets that a job names: its own, or those of the workload whose life it shares."""
        found = await self.load_secrets(job.id)
        if not found and job.parent_id is not None:
            found = await self.load_secrets(job.parent_id)
        return {name: found[name] for name in names if name in found}

    async def load_key(self, key: str) -> bytes | None:
        """What the request with this idempotency key was answered."""
        reply = await self._read(lambda c: c.execute(schema.REPLY, {"key_": key}).scalar())
        return None if reply is None else bytes(reply)

    async def load_uses(self, ids: Iterable[str]) -> dict[str, int]:
        """When credentials were used last, by id."""
        table, wanted = schema.last_use, list(ids)
        query = sa.select(table.c.id, table.c.at_ms).where(table.c.id.in_(wanted))
        return await self._read(lambda c: {row.id: int(row.at_ms) for row in c.execute(query)})

    async def load_acts(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 1000,
        equal: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Record]:
        """Rows of the audit log: see `store.audit.load`."""
        from argosy.store import audit

        return await self._read(lambda c: audit.load(c, after=after, before=before, limit=limit, equal=equal))

    async def audit_ends(self) -> tuple[tuple[int, str], tuple[int, str]]:
        """What the oldest row of the audit log follows, and the newest row: number and hash."""
        from argosy.store import audit

        return await self._read(lambda c: (audit.beginning(c), audit.end(c)))

    async def load_tokens(self) -> list[accounts.Token]:
        """By name. Also what another process wrote."""
        return await self._read(accounts.load_tokens)

    async def load_budget(self, project: str) -> Budget | None:
        """The budget of a project, also one that was taken back: its `rev` is wanted for the next."""
        return await self._read(lambda c: read_row(c, Budget, budget_id(project)))

    async def load_spending(self, *, since_ms: int) -> accounts.Spending:
        """What claims cost since then, by project."""
        return await self._read(lambda c: accounts.load_spending(c, since_ms))

    async def load_owners(self, *, since_ms: int) -> list[Workload]:
        """Workloads of which a claim was there at `since_ms` or later, oldest first."""
        table = schema.workload
        owners = sa.select(schema.claim.c.workload_id).where(was_there(schema.claim, since_ms))
        query = sa.select(table.c.body).where(table.c.id.in_(owners)).order_by(table.c.id)
        return await self._load(Workload, query)

    async def _read(self, work: Callable[[sa.Connection], T]) -> T:
        return await self._lane.call(lambda: self._database.run(work))

    async def _load(self, kind: type[R], query: sa.Select[Any]) -> list[R]:  # Any: one column, the body
        return await self._read(
            lambda c: [schema.parse_row(kind, body) for body in c.execute(query).scalars()]
        )
