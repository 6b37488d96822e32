"""Names of clusters. They are unique within a project; people of different projects may choose the same.
Pure.

    NAME            the cluster of the caller's project; when that has none, the only one of this name in all
    projects PROJECT/NAME    exactly that one clu-…           by id

The caller's project is what the request or the header `x-argosy-project` says, else `default`. A name that
the caller's project does not have and several others do is refused: nobody's cluster is ended by a guess.
"""

from __future__ import annotations

from typing import Final

from argosy.model.errors import ArgosyError
from argosy.model.kinds import kind_of
from argosy.model.rows import Workload
from argosy.store.snapshot import Snapshot

DEFAULT: Final = "default"


def cluster_called(snapshot: Snapshot, name: str, project: str = "") -> Workload | None:
    """The live cluster that is meant. Raises `conflict` when several could be."""
    by_id = snapshot.workloads.get(name)
    if by_id is not None and kind_of(by_id).hosts:
        return by_id
    named, slash, rest = name.partition("/")
    if slash:
        return snapshot.cluster_named(rest, named)
    own = snapshot.cluster_named(name, project or DEFAULT)
    if own is not None:
        return own
    others = [cluster for cluster in snapshot.clusters() if cluster.name == name]
    if len(others) > 1:
        places = sorted(cluster.project for cluster in others)
        raise ArgosyError(
            "conflict",
            f"there are clusters `{name}` in the projects {', '.join(places)}",
            hint=f"write `{places[0]}/{name}`, or set ARGOSY_PROJECT",
        )
    return others[0] if others else None


def split_name(name: str, project: str = "") -> tuple[str, str]:
    """(name, project) of a cluster that need not be there any more."""
    named, slash, rest = name.partition("/")
    return (rest, named) if slash else (name, project or DEFAULT)
