"""What language models say they used: read from answers as they pass, streamed or not.

OpenAI's chat completions, completions and embeddings say `prompt_tokens` and `completion_tokens`, its
responses `input_tokens` and `output_tokens`. The last `usage` of a body counts. A stream without any is
counted by its events.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.gateway.long_strings import TEXT, Shortened

if TYPE_CHECKING:
    from argosy.gateway.exchange import Exchange

_COUNTS: Final = re.compile(
    rb'"(prompt_tokens|input_tokens|completion_tokens|output_tokens)"\s*:\s*(\d{1,12})'
)
_TAKEN: Final = (b"prompt_tokens", b"input_tokens")
_USAGE: Final = b'"usage"'
_KEPT: Final = 4096
_EVENT: Final = b"data:"


_NONE: Final = msgspec.Raw(b"")


class ModelRequest(msgspec.Struct, kw_only=True):
    """What the gateway reads of a request to a language model; parts of its prompt as they are written."""

    model: str = ""
    tools: msgspec.Raw = _NONE
    system: msgspec.Raw = _NONE  # Anthropic's
    instructions: msgspec.Raw = _NONE  # of OpenAI's responses
    cache_salt: msgspec.Raw = _NONE
    messages: msgspec.Raw = _NONE
    prompt: msgspec.Raw = _NONE  # of completions
    input: msgspec.Raw = _NONE  # of embeddings and responses
    stream: bool | None = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None

    @property
    def most_tokens(self) -> int:
        """Of the answer; 0: it does not say."""
        return self.max_completion_tokens or self.max_tokens or self.max_output_tokens or 0


_PARTS: Final = ("tools", "system", "instructions", "cache_salt", "messages", "prompt", "input")
_decoder: Final = msgspec.json.Decoder(ModelRequest)


def parse_model_request(body: bytes) -> ModelRequest:
    """Raises ValueError with a sentence for the client."""
    short = Shortened(body) if len(body) >= TEXT else None
    try:
        if short is None or short.is_whole:
            return _decoder.decode(body)
        read = _decoder.decode(short.text)
        if read.model[:1] == "\0":  # the name of a gap: no model is called so
            return _decoder.decode(body)
        for name in _PARTS:
            if part := getattr(read, name):
                setattr(read, name, msgspec.Raw(short.restored(part)))
        return read
    except msgspec.ValidationError as error:
        raise ValueError(f"the body is not a request to a model: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError("the body is not JSON") from None


def asked_of(exchange: Exchange) -> ModelRequest:
    """What a request asks whose body is there, read once. Raises ValueError with a sentence for clients."""
    found = exchange.asked
    if not isinstance(found, ModelRequest):
        found = exchange.asked = parse_model_request(exchange.body or b"{}")
    return found


def model_of(exchange: Exchange) -> str:
    """What a body that is there names; empty: nothing, or nothing that can be read."""
    if not exchange.body:
        return ""
    try:
        return asked_of(exchange).model
    except ValueError:
        return ""


class Usage:
    """Sees the pieces of one answer pass."""

    __slots__ = ("_events", "_found", "_last", "_request_bytes")

    def __init__(self, request_bytes: int) -> None:
        self._request_bytes = request_bytes
        self._found = b""  # from the last `usage` on
        self._last = b""  # the end of the piece before
        self._events = 0

    def see(self, piece: bytes) -> None:
        """The next piece of the answer's body."""
        width = len(_USAGE)
        at = piece.rfind(_USAGE)
        if at >= 0:
            self._found = piece[at : at + _KEPT]
        else:
            joint = self._last + piece[:width]
            at = joint.rfind(_USAGE)
            if at >= 0:
                self._found = joint[at:] + piece[width:_KEPT]
            elif self._found and len(self._found) < _KEPT:
                self._found += piece[: _KEPT - len(self._found)]
        self._last = piece[-width:] if len(piece) >= width else (self._last + piece)[-width:]
        self._events += piece.count(_EVENT)

    def tokens(self) -> tuple[int, int]:
        """Of the request and of the answer."""
        taken = made = None  # the first that is told of each: details come after
        for name, count in _COUNTS.findall(self._found):
            if name in _TAKEN:
                taken = int(count) if taken is None else taken
            elif made is None:
                made = int(count)
        if taken is None and made is None:
            if not self._events:
                return 0, 0
            return self._request_bytes // 4, self._events
        return taken or 0, made or 0
