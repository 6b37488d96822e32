"""What SGLang's replicas are told where one reads prompts and another answers.

Both get the same request at the same time, with three more fields: the host and port at which the reader's
bootstrap server listens, and the number of a room where the two meet for this request. The reader gives the
blocks of the prompt to whoever comes into the room; the other one answers the client. A request that is
several for the runtime has one of each for every one of them.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from argosy.gateway.addresses import Address
from argosy.gateway.exchange import Exchange

_Body = dict[str, msgspec.Raw]
_decoder: Final = msgspec.json.Decoder(_Body)
_Prompts = str | list[str | int | list[int]]
_MOST: Final = 4096


class _Several(msgspec.Struct, frozen=True):
    """What makes one request several."""

    n: int | None = None
    prompt: _Prompts | None = None  # of completions
    text: _Prompts | None = None  # of SGLang's own `/generate`
    input_ids: _Prompts | None = None


_several: Final = msgspec.json.Decoder(_Several)


class Rooms:
    """Where the parts of one request meet."""

    def __init__(self, body: bytes, exchange: Exchange) -> None:
        """Raises ValueError for a body that is no request to a model."""
        try:
            self._fields = _decoder.decode(body)
            self._count = _count(_several.decode(body), exchange.head.path)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from None
        self._rooms = [_room(exchange.id, number) for number in range(self._count or 1)]

    def at(self, reader: Address, port: int) -> bytes:
        """The request for both, when this replica reads its prompt."""
        host = f"[{reader.host}]" if ":" in reader.host else reader.host
        told: dict[str, object] = {"bootstrap_host": host, "bootstrap_port": port}
        if self._count is not None:
            told = {name: [value] * self._count for name, value in told.items()}
        room = self._rooms if self._count is not None else self._rooms[0]
        return msgspec.json.encode({**self._fields, **told, "bootstrap_room": room})


def _count(several: _Several, path: bytes) -> int | None:
    """How many requests it is for the runtime; None: one, which says its fields without a list."""
    if path.endswith(b"/generate"):
        prompts = several.text if several.text is not None else several.input_ids
    else:
        prompts = several.prompt if path.endswith(b"/completions") else None
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        return _checked(len(prompts))
    return _checked(several.n) if several.n is not None and several.n > 1 else None


def _checked(count: int) -> int:
    if count > _MOST:
        raise ValueError(f"{count} requests in one are too many: at most {_MOST}")
    return count


def _room(request: bytes, number: int) -> int:
    """A number of 63 bits that nobody else's request has: ids of requests are never given twice."""
    digest = hashlib.blake2b(b"%b/%d" % (request, number), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
