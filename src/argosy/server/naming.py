"""Names of clusters. They are unique within a project; different projects may use the same name. Pure.

    NAME            the cluster of the caller's project; when that has none, the only one of this name in all
    projects PROJECT/NAME    exactly that one clu-…           by id

The caller's project is what the request or the header `x-argosy-project` says, else `default`. A name that
the caller's project does not have and several others do is refused: nobody's cluster is ended by a guess.
"""

from __future__ import annotations

from argosy.model.access import OWNER, Caller
from argosy.model.errors import ArgosyError
from argosy.model.kinds import kind_of
from argosy.model.rows import Workload
from argosy.server.guarding import DEFAULT, sees
from argosy.store.snapshot import Snapshot

__all__ = ["DEFAULT", "cluster_called", "split_name"]


def cluster_called(snapshot: Snapshot, name: str, caller: Caller = OWNER) -> Workload | None:
    """The live cluster that is meant, of those that the caller may see. Raises `conflict` when several could
    be."""
    by_id = snapshot.workloads.get(name)
    if by_id is not None and kind_of(by_id).hosts:
        return _seen(caller, by_id)
    named, slash, rest = name.partition("/")
    if slash:
        return _seen(caller, snapshot.cluster_named(rest, named))
    own = _seen(caller, snapshot.cluster_named(name, caller.project or DEFAULT))
    if own is not None:
        return own
    others = [each for each in snapshot.clusters() if each.name == name and sees(caller, each)]
    if len(others) > 1:
        places = sorted(cluster.project for cluster in others)
        raise ArgosyError(
            "conflict",
            f"there are clusters `{name}` in the projects {', '.join(places)}",
            hint=f"write `{places[0]}/{name}`, or set ARGOSY_PROJECT",
        )
    return others[0] if others else None


def _seen(caller: Caller, row: Workload | None) -> Workload | None:
    return row if row is not None and sees(caller, row) else None


def split_name(name: str, project: str = "") -> tuple[str, str]:
    """(name, project) of a cluster that need not be there any more."""
    named, slash, rest = name.partition("/")
    return (rest, named) if slash else (name, project or DEFAULT)
