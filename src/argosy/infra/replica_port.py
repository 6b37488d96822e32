"""What the server asks of a running replica, and where it is reached. Tests and the simulation have their
own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from argosy.model.rows import Node
from argosy.model.serving import Probe


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one probe."""

    good: bool
    why: str = ""  # of one that was not good, as a sentence goes on: "it answers 503"
    refused: bool = False  # nobody listens there


class ReplicaPort(Protocol):
    """Reaches the ports of programs on nodes."""

    async def open(self, node: Node, port: int) -> str:
        """Where the port is reached from this machine until `close`: HOST:PORT, or the path of a unix socket.
        Safe to repeat. Raises `border.BorderError`."""

    async def ask(self, address: str, probe: Probe, secrets: Mapping[str, str]) -> Answer:
        """One request. `secrets`: values of `$NAME` in the headers of the probe. Never raises."""

    async def listening(self, node: Node, rank_id: str) -> Sequence[int]:
        """Ports on which the rank's processes listen; () where that is not known. Never raises."""

    def close(self, node_id: str, port: int) -> None:
        """It is not reached any more; connections that are open go on."""
