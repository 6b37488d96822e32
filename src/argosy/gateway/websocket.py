"""The replica's side of a WebSocket as it passes: its frames are counted, so that the gateway can say
goodbye between two of them."""

from __future__ import annotations

from typing import Final

from argosy.gateway.framing import Frames

#: A close frame with status 1001, "going away".
GOING_AWAY: Final = b"\x88\x02\x03\xe9"


class Socket:
    """One WebSocket. `is_leaving`: it is closed at the next border of frames."""

    __slots__ = ("_frames", "is_leaving")

    def __init__(self) -> None:
        self._frames = Frames()
        self.is_leaving = False

    def leave(self) -> bool:
        """Ask for the end. True: it can be now."""
        self.is_leaving = True
        return self._frames.at_border

    def takes(self, data: bytes) -> tuple[bytes, bool]:
        """What the client gets of the replica's bytes, and whether the goodbye follows."""
        border = self._frames.feed(data)
        if self.is_leaving and border >= 0:
            return data[:border], True
        return data, False
