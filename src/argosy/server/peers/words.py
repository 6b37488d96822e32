"""What servers of one database ask each other, and how it is written: a size, JSON, then perhaps bytes.

Every question is answered by who is asked, from what it has itself, and never passed on: so nothing can go
round in circles.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from argosy.infra import border
from argosy.model.errors import ArgosyError
from argosy.model.facts import ClaimFact
from argosy.model.rows import Claim, Node

_WORD_BYTES_MAX: Final = 32 << 20


class Question(msgspec.Struct, frozen=True, tag_field="ask", kw_only=True):
    """One of those below."""


class Reach(Question, frozen=True, tag="reach"):
    """A stream to the agent of a node: after the answer come its bytes."""

    node: Node


class ReadLog(Question, frozen=True, tag="log"):
    """What a rank has printed: after the answer come `size` bytes from `offset` on."""

    rank_id: str
    offset: int


class GetTree(Question, frozen=True, tag="tree"):
    """An uploaded tree: `size` bytes of JSON."""

    digest: str


class GetChunks(Question, frozen=True, tag="chunks"):
    """Those of these chunks that are there, as a pack, until the stream ends."""

    digests: tuple[str, ...]


class Drive(Question, frozen=True, tag="drive"):
    """A verb of a provider whose place is the server's own machine: `ensure`, `release` or `observe`."""

    provider: str
    verb: str
    claim: Claim | None = None
    claim_ids: tuple[str, ...] = ()


class Admit(Question, frozen=True, tag="admit"):
    """Whether this server gave a node the token with which it dials in."""

    node: str
    token: str


class PassOn(Question, frozen=True, tag="pass"):
    """A connection to a door of the server that keeps the servers' own files: after the answer come the bytes
    of one request of HTTP, then those of its answer. `address`: of who asks."""

    door: str
    address: str


class Used(msgspec.Struct, frozen=True, array_like=True):
    subject: str
    by: str


class News(Question, frozen=True, tag="news"):
    """Rows that have changed; who is at work where. Nobody waits for the answer."""

    rows: tuple[str, ...] = ()
    used: tuple[Used, ...] = ()
    attended: tuple[str, ...] = ()


AnyQuestion = Reach | ReadLog | GetTree | GetChunks | Drive | Admit | PassOn | News


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`error`: a class of `infra.border`, or a code of errors; "": it is done."""

    error: str = ""
    text: str = ""
    where: str = ""  # of an error: its field or scope
    hint: str = ""
    size: int = 0  # of the bytes that follow
    complete: bool = False  # of a log: nothing comes after them
    key: str = ""  # of a node that may dial in
    facts: tuple[ClaimFact, ...] = ()


def answer_of(error: Exception) -> Answer:
    """An error as an answer."""
    if isinstance(error, ArgosyError):
        return Answer(error=error.code, text=error.what, hint=error.hint)
    where = getattr(error, "field", "") or getattr(error, "scope", "") or getattr(error, "what", "")
    return Answer(error=type(error).__name__, text=str(error) or type(error).__name__, where=str(where))


def error_of(answer: Answer) -> Exception:
    """The error that the answer means, as if it had been raised here."""
    kind = getattr(border, answer.error, None)
    if kind is None:
        if answer.error in ("TimeoutError", "OSError") or answer.error[:1].isupper():
            return border.Transient(answer.text)
        return ArgosyError(answer.error, answer.text, hint=answer.hint)
    made: Exception
    match answer.error:
        case "OutOfCapacity":
            made = border.OutOfCapacity(answer.where, answer.text)
        case "QuotaExceeded":
            made = border.QuotaExceeded(answer.where, "", answer.text)
        case "RequestRefused":
            made = border.RequestRefused(answer.where, answer.text)
        case "Silent":
            made = border.Silent(answer.text, 0.0)
        case _:
            made = kind(answer.text)
    return made


async def say(writer: asyncio.StreamWriter, word: AnyQuestion | Answer) -> None:
    """Write one word. Raises OSError."""
    data = msgspec.json.encode(word)
    writer.write(len(data).to_bytes(4) + data)
    await writer.drain()


async def hear(reader: asyncio.StreamReader) -> bytes:
    """Read one word. Raises OSError, ValueError for what is none."""
    try:
        size = int.from_bytes(await reader.readexactly(4))
        if size > _WORD_BYTES_MAX:
            raise ValueError(f"a word of {size} bytes")
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise ConnectionResetError("the other server has closed the connection") from None
