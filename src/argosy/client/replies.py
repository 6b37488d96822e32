"""How answers are read: replies, errors, versions. No I/O here."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from argosy.api.endpoint import API_VERSION, Call
from argosy.api.server import Health
from argosy.model.errors import ArgosyError, Problem

T = TypeVar("T")

_CODE_OF_STATUS: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "version-mismatch",  # our own 404s carry a Problem: this server does not know the path
    405: "version-mismatch",
    413: "too-large",
    426: "version-mismatch",
    502: "server-unreachable",
    503: "server-unreachable",
    504: "server-unreachable",
}


def decode_reply(call: Call[T], status: int, body: bytes) -> T:
    """The answer to a call. Raises the server's error as ArgosyError."""
    if status >= 400:
        raise error_of(status, body)
    if call.endpoint.reply is None:
        return body  # type: ignore[return-value]  # an answer that is bytes
    try:
        return msgspec.json.decode(body, type=call.endpoint.answer)
    except msgspec.DecodeError as error:
        raise ArgosyError(
            "version-mismatch", f"the server's answer to `{call.endpoint.name}` is not understood ({error})"
        ) from None


def error_of(status: int, body: bytes) -> ArgosyError:
    """The error that a reply with `status` >= 400 tells."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        text = body[:200].decode("utf-8", "replace").strip().partition("\n")[0]
        what = f"the server answered with HTTP status {status}" + (f": {text}" if text else "")
        return ArgosyError(_CODE_OF_STATUS.get(status, "internal"), what)
    return ArgosyError.from_problem(problem)


def check_version(health: Health, mine: str) -> None:
    """Raises "version-mismatch" when this client and that server cannot talk."""
    if health.api != API_VERSION:
        older = "older" if health.api < API_VERSION else "newer"
        raise ArgosyError(
            "version-mismatch",
            f"the server is {older} (Argosy {health.version}, API {health.api}) than this client "
            f"(Argosy {mine}, API {API_VERSION})",
            hint="restart the server with this version: `argosy server stop`, then repeat"
            if health.api < API_VERSION
            else "install the server's version of Argosy here: `pip install --upgrade argosy`",
        )
