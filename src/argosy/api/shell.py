"""Terminals on nodes."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import endpoint


class ShellCalls:
    """Streams: each client speaks them in its own way."""

    @endpoint("WS", "/clusters/{cluster}/shell", permission="clusters.enter")
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

    @endpoint("WS", "/clusters/{cluster}/forward", permission="clusters.enter")
    def forward(
        self,
        cluster: str,
        *,
        port: Annotated[int, "of the node's loopback"],
        node: Annotated[int, "rank of the node"] = 0,
    ) -> bytes:
        """WebSocket: a connection to a port of the node. Binary frames are its bytes; the text frame {"end":
        true} says that this side sends no more."""

    @endpoint("WS", "/clusters/{cluster}/ssh", permission="clusters.enter")
    def ssh(
        self,
        cluster: str,
        *,
        key: Annotated[str, "the public key that may log in"],
        node: Annotated[int, "rank of the node"] = 0,
    ) -> bytes:
        """WebSocket: an ssh server on the node, for one connection. The first line is JSON {host_key}; what
        follows is ssh's own protocol. Frames as in `forward`."""

    @endpoint("WS", "/clusters/{cluster}/copy", permission="clusters.enter")
    def copy(
        self,
        cluster: str,
        *,
        path: Annotated[str, "on the node: relative to its home, or absolute"],
        name: Annotated[str, "of what is copied to the node"] = "",
        read: Annotated[bool, "copy from the node"] = False,
        node: Annotated[int, "rank of the node"] = 0,
    ) -> bytes:
        """WebSocket: a file or folder as a tar stream, in which it is called `x`. To the node: tar, {"end":
        true}, then the line {files} or {error} comes. From it: the line {bytes}, then tar. Frames as in
        `forward`."""
