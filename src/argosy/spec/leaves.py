"""Shapes of single values that several fields share."""

from __future__ import annotations

from typing import Final

from argosy.spec import names, notation
from argosy.spec.findings import excerpt
from argosy.spec.shapes import ListOf, Notation, Open, Text


def _label(text: str) -> str:
    if not text.strip() or len(text) > 317:
        raise ValueError(f"`{excerpt(text)}` is no label: give it 1 to 317 characters")
    return text


OPEN_MAP: Final = Open(says="a mapping", mapping=True)
TEXTS: Final = ListOf(item=Text(), one_will_do=True, says="a list of texts")
SPAN: Final = Notation(says="a duration such as `90m` or `36h`", parse=notation.parse_span)
SECONDS: Final = Notation(says="a number of seconds or a duration such as `5m`", parse=notation.parse_seconds)
SIZE: Final = Notation(
    says="a size such as `100` (GB), `512MB` or `1TB`",
    parse=notation.parse_bytes,
    pattern=r"^\s*[0-9]*\.?[0-9]+\s*([kKmMgGtTpP]?([iI]?[bB])?)\s*$",
)
VARIABLE: Final = Notation(
    says="the name of a variable", parse=names.parse_variable, pattern="^[A-Za-z_][A-Za-z0-9_]*$"
)
PATH: Final = Text(says="a path", check=notation.parse_path)
SOURCE: Final = Text(says="a local path or a URL such as `s3://bucket/folder`", check=notation.parse_source)
LABEL_KEY: Final = Text(says="a label", check=_label)
TARGET: Final = Text(says="a path on the node", check=notation.parse_path)
