"""Names: of clusters, jobs and variables; which are ours; and `K=V` as people give it."""

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
_USERS: Final = ("ARGOSY_DOCKER_", "SKYPILOT_DOCKER_")


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
    if name.startswith(_OURS) and not name.startswith(_USERS):
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


def parse_env_text(text: str, *, source: str) -> dict[str, str]:
    """The variables of a dotenv file: `K=V` lines, comments, `export`, single or double quotes.

    Raises ArgosyError `spec-invalid` with file:line. Values are never echoed.
    """
    result: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        body = line.strip()
        if not body or body.startswith("#"):
            continue
        name, equals, value = body.removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        where = f"{source}:{number}:1"
        if not equals:
            raise ArgosyError(
                "spec-invalid", "this line is no `NAME=VALUE`", where=where, hint="comments begin with `#`"
            )
        try:
            parse_variable(name)
        except ValueError as error:
            what, _, hint = str(error).partition("; ")
            raise ArgosyError("spec-invalid", what, where=where, hint=hint) from None
        result[name] = _unquote(value, where)
    return result


def _unquote(value: str, where: str) -> str:
    if value[:1] in ("'", '"'):
        quote = value[0]
        end = value.find(quote, 1)
        while quote == '"' and end > 0 and value[end - 1] == "\\":
            end = value.find(quote, end + 1)
        rest = value[end + 1 :].strip()
        if end < 0 or (rest and not rest.startswith("#")):
            raise ArgosyError(
                "spec-invalid", "a quote is not closed", where=where, hint="add the closing quote"
            )
        inner = value[1:end]
        if quote == "'":
            return inner
        escapes = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
        return re.sub(r"\\([nt\"\\$])", lambda match: escapes[match[1]], inner)
    return re.split(r"\s+#", value, maxsplit=1)[0]
