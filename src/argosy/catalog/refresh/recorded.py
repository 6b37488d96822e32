"""A price service as recorded: what `providers/<x>/sample.py` answers in its place, in its own format.

Each sample is a class `Sample` that holds one entry of the service, and `GIVES`: the machine, its region and
the dollars an hour on demand that a refresh makes of it. Tests change what it holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

HERE: Final = "http://service"  # in an answer: the address of whoever answers


class Asked(NamedTuple):
    """One request."""

    path: str
    query: Mapping[str, str]
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


class Refused(Exception):
    """Answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Recorded(Protocol):
    """One price service."""

    GIVES: tuple[str, str, float]

    def answer(self, asked: Asked) -> object:
        """JSON, or text for XML; None: it is no request for this service. Raises `Refused`."""
