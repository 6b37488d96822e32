"""How dstack writes ranges, durations, ports, repositories and commands."""

from __future__ import annotations

import re

from argosy.convert import amounts
from argosy.convert.reading import Fields, is_nothing, kind_of, text_of, whole_of, wrong
from argosy.spec.source import Node, Pairs, Scalar


def range_text(node: Node, path: str) -> str:
    """`4`, `4..8` or `{min, max}` as text."""
    if isinstance(node, Pairs):
        given = {key.raw: value for key, value in node.pairs if isinstance(key, Scalar)}
        low = text_of(given["min"], path) if not is_nothing(given.get("min")) else ""
        high = text_of(given["max"], path) if not is_nothing(given.get("max")) else ""
        if low or high:
            return low if low == high else f"{low}..{high}"
        raise wrong(node, f"`{path}` must have `min` or `max`")
    return text_of(node, path)


def joined(commands: list[str]) -> str:
    r"""As dstack joins them: each runs only if those before it succeeded.

    >>> joined(["false", "echo x"])
    'false &&\necho x'
    """
    if len(commands) == 1:
        return commands[0]
    closed = [
        f"{{\n{command.rstrip()}\n}}"
        if re.search(r"[\n#]|<<|&\s*$|;\s*$", command.strip())
        else command.strip()
        for command in commands
    ]
    return " &&\n".join(closed)


def split_repo(text: str) -> tuple[str | None, str | None, str | None]:
    """Folder, address and target of `FOLDER[:TARGET]` or `URL[:TARGET]`."""
    if "://" in text or text.startswith("git@"):
        match = re.fullmatch(r"((?:[a-z+]+://|git@)[^:]+(?::(?!/)[^:]+)?)(?::(/.*))?", text)
        return None, (match[1] if match else text), (match[2] if match else None)
    local, _, target = text.partition(":")
    return local, None, target or None


def port_of(node: Node, path: str) -> str:
    if isinstance(node, Pairs):
        given = {key.raw: value for key, value in node.pairs if isinstance(key, Scalar)}
        container = given.get("container_port")
        if container is None:
            raise wrong(node, f"`{path}` must have `container_port`")
        number = whole_of(container, path)
    else:
        text = text_of(node, path).rpartition(":")[2]
        if not text.isdigit() or len(text) > 5:
            raise wrong(node, f"`{path}` must be a port, found {kind_of(node)}")
        number = int(text)
    if not 1 <= number <= 65535:
        raise wrong(node, f"`{path}` must be from 1 to 65535")
    return str(number)


def duration_s(fields: Fields, name: str, text: str) -> int:
    """Seconds of `2h`. Errors: "spec-invalid" where it is no duration, or a very long one."""
    try:
        seconds = amounts.duration_s(text)
    except ValueError as error:
        raise fields.wrong(f"`{name}`: {error}") from None
    if seconds > 10 * 365 * 86400:
        raise fields.wrong(f"`{name}` is longer than ten years")
    return seconds
