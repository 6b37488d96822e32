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
TEXTS: Final = ListOf(Text(), one_will_do=True, says="a list of texts")
SPAN: Final = Notation("a duration such as `90m` or `36h`", notation.parse_span)
SECONDS: Final = Notation("a number of seconds or a duration such as `5m`", notation.parse_seconds)
SIZE: Final = Notation(
    "a size such as `100` (GB), `512MB` or `1TB`",
    notation.parse_bytes,
    pattern=r"^\s*[0-9]*\.?[0-9]+\s*([kKmMgGtTpP]?([iI]?[bB])?)\s*$",
)
VARIABLE: Final = Notation("the name of a variable", names.parse_variable, pattern="^[A-Za-z_][A-Za-z0-9_]*$")
PATH: Final = Text("a path", notation.parse_path)
SOURCE: Final = Text("a local path or a URL such as `s3://bucket/folder`", notation.parse_source)
LABEL_KEY: Final = Text("a label", _label)
TARGET: Final = Text("a path on the node", notation.parse_path)
