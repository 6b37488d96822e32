"""Terminals on nodes."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import endpoint


class ShellCalls:
    """Streams: each client speaks them in its own way."""

    @endpoint("WS", "/clusters/{cluster}/shell")
    def shell(
        self,
        cluster: str,
        *,
        node: Annotated[int, "rank of the node"] = 0,
        command: Annotated[str | None, "instead of a login shell"] = None,
        rows: Annotated[int, "of the terminal"] = 24,
        columns: Annotated[int, "of the terminal"] = 80,
    ) -> bytes:
        """WebSocket: binary frames are terminal bytes; text frames are JSON {rows, columns} from the client
        and {exit_code} from the server."""
