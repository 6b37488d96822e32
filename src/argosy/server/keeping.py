"""Which server keeps the files that belong to all servers of a database: buckets, the volume `server`, copies
between stores. One of them keeps these on its disk; a request for them that reaches another server is passed
on."""

from __future__ import annotations

from pathlib import Path

from argosy.infra.agent_port import Channel
from argosy.model.errors import ArgosyError


class Elsewhere(ArgosyError):
    """Another server keeps the files. Raised before anything is changed: the door passes the request on."""

    def __init__(self) -> None:
        super().__init__("transient", "another server keeps the servers' own files")


class Keeping:
    """Of a server alone: it keeps them."""

    is_here = True

    def check(self) -> None:
        """Raises Elsewhere when it is not known that this server keeps them."""
        if not self.is_here:
            raise Elsewhere

    async def settled(self) -> bool:
        """Whether this server keeps them; it does from now on when none did."""
        return True

    async def reach(self, door: str, address: str) -> Channel:
        """A connection to a door of the server that keeps them: `socket`, `tcp` or `programs`. `address`: of
        who asks. Raises `transient` while that server is away."""
        raise Elsewhere


def has_files(state_dir: Path) -> bool:
    """Whether a server has buckets or folders on its disk."""
    folders = state_dir / "folders"
    return (state_dir / "objects" / "index.db").exists() or (folders.is_dir() and any(folders.iterdir()))
