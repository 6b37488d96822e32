"""On which TCP ports a rank's processes listen, by the kernel's own books."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from argosy.agent.supervision import Supervision

_LISTENS = "0A"


def calls(shared: Supervision) -> Callable[[dict[str, object]], Awaitable[dict[str, object]]]:
    """What answers `POST /listening`."""

    async def listening(arguments: dict[str, object]) -> dict[str, object]:
        ids = arguments.get("ids")
        snapshot = await shared.table.snapshot()
        pids: set[int] = set()
        for rank_id in ids if isinstance(ids, list) else ():
            rank = shared.by_id.get(str(rank_id))
            if rank is not None and not rank.ended:
                pids |= shared.members(rank, snapshot)
        return {"ports": ports_of(sorted(pids))}

    return listening


def ports_of(pids: Iterable[int]) -> list[int]:
    """In ascending order. Processes that are not ours to look into are left out."""
    sockets = set()
    first = 0
    for pid in pids:
        found = _sockets_of(pid)
        if found and not first:
            first = pid
        sockets |= found
    if not first:
        return []
    ports = set()
    for name in ("tcp", "tcp6"):
        try:
            with open("/proc/%d/net/%s" % (first, name)) as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for words in map(str.split, lines):
            if len(words) > 9 and words[3] == _LISTENS and words[9] in sockets:
                ports.add(int(words[1].rpartition(":")[2], 16))
    return sorted(ports)


def _sockets_of(pid: int) -> set[str]:
    """Inodes of its sockets."""
    folder = "/proc/%d/fd" % pid
    found = set()
    try:
        for name in os.listdir(folder):
            try:
                target = os.readlink(folder + "/" + name)
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found
