"""A consistent view of all live rows. Immutable: a commit makes the next one, which shares what did not
change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from argosy.model.budget import Budget, budget_id
from argosy.model.entry import Entry
from argosy.model.kinds import kind_of
from argosy.model.kinds.cluster import CLUSTER
from argosy.model.phases import ClaimPhase, Desired
from argosy.model.rows import Attempt, Claim, Node, Row, Workload
from argosy.model.tenancy import TENANCY_ID, Tenancy
from argosy.store.sorted_map import SortedMap

if TYPE_CHECKING:
    from argosy.model.people import AnyEntry

Stored = Row | Tenancy | Budget | Entry
R = TypeVar("R", Workload, Attempt, Claim, Node)

_SEP = "\0"  # stands in no id, so that one parent's keys never begin like another's


def _order_key(owner_id: str | None, row: Workload) -> str:
    return f"{owner_id or ''}{_SEP}{row.number:012d}{_SEP}{row.id}"


def _job_key(row: Workload) -> str:
    """Numbers of children are their positions in a group: they stand behind all others, in a place of their
    own."""
    if row.parent_id is None:
        return _order_key(row.host_id, row)
    return f"{row.host_id or ''}{_SEP}~{_order_key(row.parent_id, row)}"


def _keys_of(row: Stored) -> tuple[tuple[str, str], ...]:
    """(index, key) of every index that holds the row while it is live."""
    if isinstance(row, Tenancy | Budget):
        return ()
    if isinstance(row, Entry):
        unique, owner = row.unique, row.of
        found = [("people_called", unique)] if unique else []
        return (*found, *([("people_of", f"{owner}{_SEP}{row.id}")] if owner else []))
    if isinstance(row, Workload):
        kind = kind_of(row)
        keys: list[tuple[str, str]] = []
        if kind.named:
            keys.append(("names", f"{row.kind}{_SEP}{row.project}{_SEP}{row.name}"))
        if kind.runs:
            keys.append(("jobs", _job_key(row)))
        if kind.gathers and row.host_id is None:
            keys.append(("groups", _order_key(None, row)))
        if row.parent_id:
            keys.append(("children", _order_key(row.parent_id, row)))
        keys += (("waiters", f"{each}{_SEP}{row.id}") for each in kind.awaits(row))
        return tuple(keys)
    if isinstance(row, Attempt):
        return (("attempt_of", row.workload_id),)
    if isinstance(row, Claim):
        shared = (("shared", f"{guest}{_SEP}{row.id}") for guest in row.guests)
        return (("claims_of", f"{row.workload_id}{_SEP}{row.id}"), *shared)
    order = f"{row.claim_id}{_SEP}{row.index:06d}{_SEP}{row.id}"
    return (("claim_nodes", order), ("nodes_of", f"{row.workload_id}{_SEP}{order}"))


_ROWS = ("workloads", "attempts", "claims", "nodes")
_HOME: dict[type, str] = {
    **dict(zip((Workload, Attempt, Claim, Node), _ROWS, strict=True)),
    Tenancy: "tenancy",
    Budget: "budgets",
}
_PEOPLE = "people"  # the home of all others: entries
_OPEN = Tenancy()  # until somebody says otherwise
_INDEXES = (
    *("names", "jobs", "groups", "children", "waiters", "ends", "attempt_of", "claims_of", "claim_nodes"),
    *("shared", "nodes_of", "people_called", "people_of"),
)


class Snapshot:
    """All live rows at commit `seq`: mappings by id, and the indexes that controllers use.

    >>> Snapshot.of(()).managed_jobs()
    ()
    """

    __slots__ = ("_maps", "begun", "seq", "taken")

    def __init__(
        self, seq: int, maps: Mapping[str, SortedMap[Stored]], taken: int = 0, begun: int = 0
    ) -> None:
        self.seq = seq
        self._maps = maps
        # how often claims began to hold something, and workloads to live, as this process saw it: only
        # equality means anything
        self.taken, self.begun = taken, begun

    @classmethod
    def of(cls, rows: Iterable[Stored], *, seq: int = 0) -> Snapshot:
        """A snapshot of these rows (finished ones are left out), as tests and previews need it."""
        empty: SortedMap[Stored] = SortedMap()
        return cls(seq, dict.fromkeys((*_HOME.values(), _PEOPLE, *_INDEXES), empty)).changed(rows, seq=seq)

    def changed(self, rows: Iterable[Stored], *, seq: int) -> Snapshot:
        """The next snapshot: `rows` replace those with their ids; finished ones leave. O(rows), not
        O(live)."""
        changes: dict[str, dict[str, Stored | None]] = {}
        taken, begun = self.taken, self.begun
        latest = {row.id: row for row in rows}
        for row in latest.values():  # first every old key goes, then new ones come: names may change hands
            home = _HOME.get(type(row), _PEOPLE)
            old = self._maps[home].get(row.id)
            if isinstance(row, Claim) and _takes(cast("Claim | None", old), row):
                taken += 1
            begun += old is None and row.is_live and isinstance(row, Workload)
            if old is not None:
                changes.setdefault(home, {})[row.id] = None
                for index, key in _keys_of(old):
                    changes.setdefault(index, {})[key] = None
        for row in latest.values():
            if row.is_live:
                changes.setdefault(_HOME.get(type(row), _PEOPLE), {})[row.id] = row
                for index, key in _keys_of(row):
                    changes.setdefault(index, {})[key] = row
        if not changes and not any(isinstance(row, Workload) for row in latest.values()):
            return self if seq == self.seq else Snapshot(seq, self._maps, taken, begun)
        maps = {**self._maps, **{name: self._maps[name].changed(some) for name, some in changes.items()}}
        if over := [row for row in latest.values() if isinstance(row, Workload) and not row.is_live]:
            maps["ends"] = _with_ends(maps, over)
        return Snapshot(seq, maps, taken, begun)

    @property
    def workloads(self) -> Mapping[str, Workload]:
        return cast("Mapping[str, Workload]", self._maps["workloads"])

    @property
    def attempts(self) -> Mapping[str, Attempt]:
        return cast("Mapping[str, Attempt]", self._maps["attempts"])

    @property
    def claims(self) -> Mapping[str, Claim]:
        return cast("Mapping[str, Claim]", self._maps["claims"])

    @property
    def nodes(self) -> Mapping[str, Node]:
        return cast("Mapping[str, Node]", self._maps["nodes"])

    @property
    def tenancy(self) -> Tenancy:
        """Who shares what: queues, groups, presets, policy. With `rev` 0 when nobody has set it yet."""
        return cast("Tenancy", self._maps["tenancy"].get(TENANCY_ID, _OPEN))

    @property
    def budgets(self) -> Mapping[str, Budget]:
        """What projects may spend, by id of the budget."""
        return cast("Mapping[str, Budget]", self._maps["budgets"])

    def budget_of(self, project: str) -> Budget | None:
        return self.budgets.get(budget_id(project))

    def row(self, id: str) -> Row | None:
        """The live row of any kind with this id."""
        for home in _ROWS:
            found = self._maps[home].get(id)
            if found is not None:
                return cast("Row", found)
        return None

    def stored(self, id: str) -> Stored | None:
        """As `row`, and the tenancy, budgets and entries of the directory by their ids."""
        for home in ("tenancy", "budgets", "people"):
            found: Stored | None = self._maps[home].get(id)
            if found is not None:
                return found
        return self.row(id)

    @property
    def people(self) -> Mapping[str, AnyEntry]:
        """Entries of the directory by id. The same object as long as none of them changed."""
        return cast("Mapping[str, AnyEntry]", self._maps["people"])

    def entry_called(self, unique: str) -> AnyEntry | None:
        """The live entry with this `unique`, such as `user:ann`."""
        return cast("AnyEntry | None", self._maps["people_called"].get(unique))

    def entries_of(self, owner_id: str) -> Sequence[AnyEntry]:
        """Live entries that belong to another one: bindings, tokens and sign-ins of a user."""
        return cast("tuple[AnyEntry, ...]", self._maps["people_of"].span(f"{owner_id}{_SEP}"))

    def news(self, before: Snapshot) -> Iterator[tuple[Row | None, Row | None]]:
        """(row before, row now) of every row that differs from an earlier snapshot; None: it was not, or is
        no longer, live. Costs what changed between two snapshots of one store."""
        for home in _ROWS:
            for old, new in self._maps[home].differences(before._maps[home]):
                yield cast("Row | None", old), cast("Row | None", new)

    def clusters(self) -> Sequence[Workload]:
        """Live clusters, by project and name."""
        return self.named(CLUSTER.name)

    def cluster_named(self, name: str, project: str = "default") -> Workload | None:
        return self.find_named(CLUSTER.name, name, project)

    def named(self, kind: str) -> Sequence[Workload]:
        """Live workloads of a kind whose names are unique, by project and name."""
        return cast("tuple[Workload, ...]", self._maps["names"].span(f"{kind}{_SEP}"))

    def find_named(self, kind: str, name: str, project: str = "default") -> Workload | None:
        """The live workload of this kind and name."""
        return cast("Workload | None", self._maps["names"].get(f"{kind}{_SEP}{project}{_SEP}{name}"))

    def jobs_of(self, host_id: str) -> Sequence[Workload]:
        """Live jobs that run on the nodes of a workload, by number."""
        return cast("tuple[Workload, ...]", self._maps["jobs"].span(f"{host_id}{_SEP}"))

    def children_of(self, parent_id: str) -> Sequence[Workload]:
        """Live workloads that share the life of this one, by number."""
        return cast("tuple[Workload, ...]", self._maps["children"].span(f"{parent_id}{_SEP}"))

    def ends_for(self, workload_id: str) -> Sequence[Workload]:
        """Finished workloads whose end a live one has to know: its children, and those that it waits for.
        Children by number."""
        return cast("tuple[Workload, ...]", self._maps["ends"].span(f"{workload_id}{_SEP}"))

    def waiters_of(self, workload_id: str) -> Sequence[Workload]:
        """Live workloads that wait for the end of this one."""
        return cast("tuple[Workload, ...]", self._maps["waiters"].span(f"{workload_id}{_SEP}"))

    def groups(self) -> Sequence[Workload]:
        """Live workloads that consist of managed jobs, by number."""
        return cast("tuple[Workload, ...]", self._maps["groups"].span(_SEP))

    def managed_jobs(self) -> Sequence[Workload]:
        """Live jobs that own their nodes, by number; then those of groups."""
        return self.jobs_of("")

    def job(self, host_id: str | None, number: int) -> Workload | None:
        """The live job or group with this number."""
        beginning = f"{host_id or ''}{_SEP}{number:012d}{_SEP}"
        found = self._maps["jobs"].span(beginning) or self._maps["groups"].span(beginning)
        return cast("Workload", found[0]) if found else None

    def attempt_of(self, workload_id: str) -> Attempt | None:
        """The live attempt: there is at most one."""
        return cast("Attempt | None", self._maps["attempt_of"].get(workload_id))

    def claims_of(self, workload_id: str) -> Sequence[Claim]:
        """Live claims that the workload owns, oldest first."""
        return cast("tuple[Claim, ...]", self._maps["claims_of"].span(f"{workload_id}{_SEP}"))

    def claims_shared_by(self, workload_id: str) -> Sequence[Claim]:
        """Live claims of others of which the workload is a guest."""
        return cast("tuple[Claim, ...]", self._maps["shared"].span(f"{workload_id}{_SEP}"))

    def nodes_of_claim(self, claim_id: str) -> Sequence[Node]:
        """Live nodes, by index."""
        return cast("tuple[Node, ...]", self._maps["claim_nodes"].span(f"{claim_id}{_SEP}"))

    def nodes_of(self, workload_id: str) -> Sequence[Node]:
        """Live nodes of all claims of the workload, by claim and index."""
        return cast("tuple[Node, ...]", self._maps["nodes_of"].span(f"{workload_id}{_SEP}"))


def _with_ends(maps: Mapping[str, SortedMap[Stored]], over: Sequence[Workload]) -> SortedMap[Stored]:
    """What is kept of the workloads that ended: those that a live one has to know of. What was kept for one
    that ended itself goes."""
    ends, changes = maps["ends"], dict[str, Stored | None]()
    for row in over:
        for kept in ends.span(f"{row.id}{_SEP}"):
            assert isinstance(kept, Workload)
            changes[_order_key(row.id, kept)] = None
    for row in over:
        holders = [each.id for each in maps["waiters"].span(f"{row.id}{_SEP}")]
        if row.parent_id is not None and row.parent_id in maps["workloads"]:
            holders.append(row.parent_id)
        for holder in holders:
            changes[_order_key(holder, row)] = row
    return ends.changed(changes)


def _takes(old: Claim | None, new: Claim) -> bool:
    """Whether a claim holds capacity that it did not hold before."""
    return _holds(new) and not (old is not None and _holds(old))


def _holds(claim: Claim) -> bool:
    at_rest = claim.phase is ClaimPhase.STOPPED and claim.desired is not Desired.RUN
    return claim.is_live and not at_rest
