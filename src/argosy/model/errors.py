"""One family of errors: a stable code, the fact, then the fix. Rendered the same in every face.

Law: every code has a default hint in `CODES`; a test refuses one without.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec


class Code(NamedTuple):
    http: int
    hint: str
    exit: int = 1  # exit status of the command line


CODES: Final[dict[str, Code]] = {
    "spec-invalid": Code(422, "correct the named field; `argosy launch --help` shows an example", 2),
    "spec-unreadable": Code(422, "check the path and that the file is UTF-8 YAML", 2),
    "usage": Code(400, "see `--help`", 2),
    "no-offer": Code(422, "ask for less, or see what exists with `argosy launch --dryrun`", 3),
    "not-found": Code(404, "`argosy status` lists what exists", 4),
    "conflict": Code(409, "look at the present state with `argosy status`, then repeat", 5),
    "wrong-state": Code(409, "`argosy status` shows the state it is in", 5),
    "unauthorized": Code(401, "`argosy login` signs in; programs set ARGOSY_TOKEN", 6),
    "forbidden": Code(403, "ask the owner of the server for access", 6),
    "second-factor": Code(401, "type the six digits that your authenticator app shows", 6),
    "wrong-host": Code(421, "use one of the names of the server", 6),
    "wrong-method": Code(405, "see docs/openapi.json", 2),
    "foreign-page": Code(403, "open the server's own page", 6),
    "too-often": Code(429, "wait, then try again", 6),
    "over-budget": Code(
        403, "raise the budget with `argosy budget set PROJECT USD`, or end what is not needed", 6
    ),
    "over-quota": Code(403, "`argosy quota explain QUEUE` shows what the queue has and may have", 6),
    "too-large": Code(413, "send less at once; large files belong in `file_mounts`", 2),
    "server-unreachable": Code(
        503, "`argosy server start` starts the local one; ARGOSY_SERVER names a remote one", 7
    ),
    "server-starting": Code(503, "try again in a second", 7),
    "server-running": Code(409, "use the running server, or stop it with `argosy server stop`", 5),
    "port-taken": Code(409, "choose another with `--listen HOST:PORT`, or stop what uses it", 5),
    "version-mismatch": Code(426, "restart the server with this version: `argosy server stop`", 7),
    "node-unreachable": Code(
        502, "`argosy status -r` asks again; a dead node is replaced by `argosy start`", 7
    ),
    "store-corrupt": Code(500, "restore a backup as the message says", 8),
    "store-newer": Code(500, "install the Argosy version that wrote it, or restore a backup", 8),
    "store-busy": Code(503, "try again; another server may be writing", 8),
    "disk-full": Code(507, "free some space on the named disk, then repeat", 8),
    "workdir-missing": Code(422, "check the path: it is relative to where you are, not to the YAML file", 2),
    "path-escapes": Code(422, "paths in a tree are relative and have no `..`; update the client", 2),
    "unsupported": Code(501, "see the message for what can be used instead", 2),
    "transient": Code(503, "it is tried again by itself", 7),
    "internal": Code(500, "this is a bug in Argosy; `argosy server status` names the log to report", 70),
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error on the wire."""

    code: str
    what: str
    hint: str = ""
    where: str = ""  # file:line:column, or an object id
    details: tuple[str, ...] = ()  # one line each, shown between the fact and the hint


class ArgosyError(Exception):
    """Something went wrong: `what` happened, `hint` says what to do.

    >>> str(ArgosyError("not-found", "there is no cluster `x`"))
    'there is no cluster `x`'
    """

    def __init__(
        self, code: str, what: str, *, hint: str = "", where: str = "", details: tuple[str, ...] = ()
    ) -> None:
        if code not in CODES:
            raise ValueError(f"unknown error code {code!r}: add it to CODES with a hint")
        super().__init__(what)
        self.code = code
        self.what = what
        self.hint = hint or CODES[code].hint
        self.where = where
        self.details = details

    @property
    def http_status(self) -> int:
        return CODES[self.code].http

    @property
    def exit_status(self) -> int:
        return CODES[self.code].exit

    def problem(self) -> Problem:
        return Problem(code=self.code, what=self.what, hint=self.hint, where=self.where, details=self.details)

    @classmethod
    def from_problem(cls, problem: Problem) -> ArgosyError:
        code = problem.code if problem.code in CODES else "internal"
        return cls(code, problem.what, hint=problem.hint, where=problem.where, details=problem.details)


def render_error(error: ArgosyError) -> str:
    """The error as lines of text: place and fact, details, hint."""
    head = f"{error.where}: {error.what}" if error.where else f"error: {error.what}"
    lines = [head, *(f"  {line}" for line in error.details)]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return "\n".join(lines)


def near(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    import difflib  # only on the way to an error: 4 ms

    folded = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower()[:80], folded, n=1, cutoff=cutoff)
    return folded[matches[0]] if matches else None


def suggest(word: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """`did you mean ...?` when something is near, else `otherwise`."""
    found = near(word, known)
    return f"did you mean `{found}`?" if found else otherwise
