"""The servers of a database, for people; and one of them forgotten."""

from __future__ import annotations

from argosy.model.errors import ArgosyError
from argosy.server.peers.membership import DECIDING, SILENT_MS
from argosy.store import Store


async def tell_peers(store: Store, forget: str = "") -> list[str]:
    """A line for each. `forget`: name or id of one that never comes back, nor what ran on its machine. Raises
    `not-found`, `wrong-state` for one that is there, `unsupported` for a database of one server."""
    if store.servers.is_alone:
        raise ArgosyError(
            "unsupported",
            "this database belongs to one server",
            hint="several servers share a PostgreSQL: set ARGOSY_STORE",
        )
    known, decides = await store.servers.all(), await store.servers.holder(DECIDING)
    if not forget:
        lines = [("NAME", "VERSION", "SCHEMA", "STATE", "ADDRESS")]
        for each in known:
            state = f"silent for {each.silent_ms // 1000} s"
            if each.silent_ms < 0:
                state = "has ended"
            elif each.silent_ms < SILENT_MS:
                state = "decides" if each.peer.id == decides else "is there"
            peer = each.peer
            lines.append((peer.name, peer.version, peer.schema, state, peer.address or "-"))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    found = [each for each in known if forget in (each.peer.name, each.peer.id)]
    if not found:
        names = ", ".join(each.peer.name for each in known) or "none"
        raise ArgosyError("not-found", f"there is no server `{forget}`", hint=f"there are {names}")
    if 0 <= found[0].silent_ms < SILENT_MS:
        raise ArgosyError(
            "wrong-state",
            f"the server `{found[0].peer.name}` is there",
            hint="stop it first; what runs on its machine is then taken for lost",
        )
    await store.servers.forget(found[0].peer.id)
    return [f"The server {found[0].peer.name} is forgotten, and what ran on its machine is taken for lost."]
