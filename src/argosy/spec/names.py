"""Names of clusters, jobs and variables: checks, reserved ones, and parsing of `K=V`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from argosy.model.errors import ArgosyError
from argosy.spec.findings import excerpt

NAME_MAX: Final = 63  # a label of the DNS and of Kubernetes
_STRICT: Final = re.compile(r"[a-z0-9][-a-z0-9._]*")
_TASK: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS: Final = ("ARGOSY_", "SKYPILOT_")
# How users give registry credentials; everything else with our prefixes is set by the agent.
_USERS: Final = re.compile(r"(?:ARGOSY|SKYPILOT)_(?:[A-Z0-9]+_)?DOCKER_(?:USERNAME|PASSWORD|SERVER)")


def check_name(kind: str, name: str) -> str:
    """`name` itself when a `kind` (cluster, job, service ...) may be called so.

    Names of tasks and jobs may have capitals, for SkyPilot's sake; nothing is looked up by them alone.
    Raises ArgosyError `usage` with a name that would do.

    >>> check_name("cluster", "my-cluster")
    'my-cluster'
    """
    wrong = wrong_name(kind, name)
    if wrong:
        raise ArgosyError("usage", wrong, hint=f"for example `{suggest_name(kind, name)}`")
    return name


def wrong_name(kind: str, name: str) -> str:
    """What is wrong with `name` for a `kind`, as a sentence; empty when nothing is."""
    free = kind in ("task", "job", "pipeline")
    if not name:
        return f"a {kind} needs a name that is not empty"
    if len(name) > NAME_MAX:
        return f"`{excerpt(name)}` is too long for a {kind}: {len(name)} characters, at most {NAME_MAX}"
    if not (_TASK if free else _STRICT).fullmatch(name):
        letters = "letters" if free else "small letters"
        first = "letter" if free else "small letter"
        return (
            f"`{excerpt(name)}` cannot name a {kind}: "
            f"{letters}, digits, `-`, `.` and `_` only, and first a {first} or digit"
        )
    return ""


def suggest_name(kind: str, name: str) -> str:
    """A name near `name` that would do.

    >>> suggest_name("cluster", "My Cluster!")
    'my-cluster'
    """
    text = re.sub(r"[^a-z0-9._]+", "-", name.lower()).lstrip("-._")[:NAME_MAX].rstrip("-._")
    return text or f"my-{kind}"


def parse_variable(name: str) -> str:
    """The name of an environment variable that users may set. ValueError says why not."""
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            f"`{excerpt(name)}` is no name of a variable; use letters, digits and `_`, no digit first"
        )
    if name.startswith(_OURS) and not _USERS.fullmatch(name):
        raise ValueError(f"`{excerpt(name)}` is set by Argosy itself; choose another name")
    return name


def parse_assignments(assignments: Iterable[str], *, flag: str, environ: Mapping[str, str]) -> dict[str, str]:
    """`K=V`, or `K` alone to take the value from `environ`, as a mapping.

    Raises ArgosyError `usage`. Values are never echoed.

    >>> parse_assignments(["A=1", "B"], flag="--env", environ={"B": "2"})
    {'A': '1', 'B': '2'}
    """
    result: dict[str, str] = {}
    for position, assignment in enumerate(assignments, 1):
        name, equals, value = assignment.partition("=")
        try:
            parse_variable(name)
        except ValueError as error:
            # Without `=` the whole text may be a value that was pasted: do not echo it.
            what, _, hint = str(error).partition("; ")
            if not equals:
                what, hint = f"number {position} is no `NAME=VALUE`", f"write `{flag} NAME=VALUE`"
            raise ArgosyError("usage", what, where=flag, hint=hint) from None
        if not equals:
            if name not in environ:
                raise ArgosyError(
                    "usage",
                    f"`{excerpt(name)}` is not set in your shell",
                    where=flag,
                    hint=f"write `{flag} {excerpt(name)}=VALUE`, or export it first",
                )
            value = environ[name]
        result[name] = value
    return result


_ENV_LINE: Final = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[^=\n#]*?)[ \t]*=[ \t]*
    (?:'(?P<single>(?:[^'\\]|\\.)*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<plain>[^'"\n][^\n]*)?)
    [ \t]*(?:\#[^\n]*)?(?:\n|$)""",
    re.VERBOSE | re.DOTALL,
)
_EXPANSION: Final = re.compile(r"\$\{([^}:]*)(?::-([^}]*))?\}")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def parse_env_text(text: str, *, source: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a dotenv file, read as python-dotenv reads it.

    `K=V` lines, comments, `export`, single or double quotes (values may have several lines), `${NAME}` and
    `${NAME:-default}` of variables further up or of `environ`. Raises ArgosyError `spec-invalid` with
    file:line. Values are never echoed.

    >>> parse_env_text('A=1\\nB="${A}\\n2"', source="x.env")
    {'A': '1', 'B': '1\\n2'}
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    result: dict[str, str] = {}
    position = 0
    while position < len(text):
        end = text.find("\n", position)
        line = text[position : end if end >= 0 else len(text)]
        if not line.strip() or line.lstrip().startswith("#"):
            position += len(line) + 1
            continue
        where = f"{source}:{text.count(chr(10), 0, position) + 1}:1"
        match = _ENV_LINE.match(text, position)
        if match is None:
            what, hint = "this line is no `NAME=VALUE`", "comments begin with `#`"
            if "=" in line:
                what, hint = "a quote is not closed", "add the closing quote"
            raise ArgosyError("spec-invalid", what, where=where, hint=hint)
        try:
            name = parse_variable(match["name"].strip())
        except ValueError as error:
            what, _, hint = str(error).partition("; ")
            raise ArgosyError("spec-invalid", what, where=where, hint=hint) from None
        result[name] = _expanded(_value(match), {**(environ or {}), **result})
        position = match.end()
    return result


def _expanded(value: str, known: Mapping[str, str]) -> str:
    return _EXPANSION.sub(lambda found: known.get(found[1], found[2] or ""), value)


def _value(match: re.Match[str]) -> str:
    if match["single"] is not None:
        return re.sub(r"\\([\\'])", r"\1", match["single"])
    if match["double"] is not None:
        return re.sub(r"\\([ntrabfv\\'\"$])", lambda one: _ESCAPES.get(one[1], one[1]), match["double"])
    return re.split(r"\s+#", match["plain"] or "", maxsplit=1)[0].strip()
