"""Options as GNU's tools take them: -rf, -d 2, -d2, --max-depth=2, and `--` before what only looks so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from argosy.files.twin.session import Usage

ALWAYS, MAYBE = "=", "?"  # whether an option has a value

#: By letter or long word: the option's name, and whether it has a value.
Table = Mapping[str, "tuple[str, str]"]


def take_options(words: Sequence[str], table: Table) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Return the options in their order, with their values, and the operands. Raises Usage."""
    given: list[tuple[str, str | None]] = []
    operands: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            operands += rest
            break
        if not word.startswith("-") or word == "-":
            operands.append(word)
        elif word.startswith("--"):
            given.append(_long(word, rest, table))
        else:
            given += _letters(word, rest, table)
    return given, operands


def _long(word: str, rest: list[str], table: Table) -> tuple[str, str | None]:
    name, sign, value = word[2:].partition("=")
    known = table.get(name) if len(name) > 1 else None
    if known is None or (sign and not known[1]) or (known[1] == ALWAYS and not sign and not rest):
        raise Usage(f"invalid option or value: '{word}'")
    if known[1] == ALWAYS and not sign:
        return known[0], rest.pop(0)
    return known[0], value if sign else None


def _letters(word: str, rest: list[str], table: Table) -> list[tuple[str, str | None]]:
    given: list[tuple[str, str | None]] = []
    for at in range(1, len(word)):
        known = table.get(word[at])
        if known is None:
            raise Usage(f"invalid option or value: '{word}'")
        if known[1] != ALWAYS:
            given.append((known[0], None))
            continue
        if at + 1 == len(word) and not rest:
            raise Usage(f"invalid option or value: '{word}'")
        given.append((known[0], word[at + 1 :] or rest.pop(0)))
        break
    return given


def table(plain: str = "", **valued: str) -> dict[str, tuple[str, str]]:
    """`plain`: "a:all b:bytes" (letter:word, either may be missing). `valued`: words with "=" or "?", and
    perhaps a letter before it ("d=")."""
    made: dict[str, tuple[str, str]] = {}
    for pair in plain.split():
        letter, _, word = pair.partition(":")
        name = word or letter
        made.update({key: (name, "") for key in (letter, word) if key})
    for word, how in valued.items():
        name = word.replace("_", "-")
        made[name] = (name, how[-1])
        if len(how) > 1:
            made[how[0]] = (name, how[-1])
    return made
