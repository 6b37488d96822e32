"""The field table for editors (JSON schema) and for people (markdown)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from argosy.spec.fields import HEADER, TASK
from argosy.spec.shapes import (
    AsText,
    Choice,
    Field,
    Flag,
    ListOf,
    MapOf,
    Notation,
    Number,
    OneOf,
    Open,
    Shape,
    Table,
    Text,
    Then,
    Whole,
    says,
)

Schema = dict[str, Any]  # a JSON schema document is plain JSON
LATER: Final = "accepted, not executed yet"


def task_schema() -> Schema:
    """JSON schema (2020-12) of one document of a task file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Argosy task",
        **_schema(TASK),
    }


def _schema(shape: Shape) -> Schema:
    match shape:
        case Then():
            return _schema(shape.shape)
        case Table():
            return {
                "type": "object",
                "properties": {field.name: _property(field) for field in shape.fields},
                "additionalProperties": shape.lenient,
            }
        case OneOf():
            return {"anyOf": [_schema(option) for option in shape.shapes]}
        case ListOf():
            listed = {"type": "array", "items": _schema(shape.item), "maxItems": shape.maximum}
            return {"anyOf": [_schema(shape.item), listed]} if shape.one_will_do else listed
        case MapOf():
            value = _schema(shape.value)
            if shape.null_will_do:
                value = {"anyOf": [value, {"type": "null"}]}
            names = {"propertyNames": {"pattern": shape.key.pattern}} if shape.key.pattern else {}
            return {"type": "object", "additionalProperties": value, **names}
        case Open():
            return {"type": "object"} if shape.mapping else {}
        case Text():
            return {"type": "string"} | ({"pattern": shape.pattern} if shape.pattern else {})
        case Notation():
            return {"type": ["string", "number"]} | ({"pattern": shape.pattern} if shape.pattern else {})
        case AsText():
            return {"type": ["string", "number", "boolean", *(["null"] if shape.nullable else [])]}
        case Whole():
            return {"type": "integer"} | _limits(shape.minimum, shape.maximum)
        case Number():
            return {"type": "number"} | _limits(shape.minimum, None)
        case Flag():
            return {"type": "boolean"}
        case Choice():
            return {"type": "string", "enum": sorted({*shape.words, *(word.lower() for word in shape.words)})}


def _limits(minimum: float | None, maximum: float | None) -> Schema:
    limits = {"minimum": minimum, "maximum": maximum}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _property(field: Field) -> Schema:
    doc = f"{field.doc} ({LATER})" if field.later else field.doc
    return {**_schema(field.shape), "description": doc}


def render_field_table() -> str:
    """Markdown: a heading and a table of fields for every part of a task file."""
    parts: list[str] = []
    told: set[str] = set()
    for title, table in [("Task", TASK), *_tables(TASK), ("Header of several documents", HEADER)]:
        if title in told:
            continue
        told.add(title)
        parts.append(_part(title, table))
    return "\n".join(parts)


def _tables(table: Table) -> Iterator[tuple[str, Table]]:
    for field in table.fields:
        for inner in _inner(field.shape):
            yield f"`{inner.name}`", inner
            yield from _tables(inner)


def _inner(shape: Shape) -> list[Table]:
    match shape:
        case Table():
            return [shape]
        case Then():
            return _inner(shape.shape)
        case OneOf():
            return [table for option in shape.shapes for table in _inner(option)]
        case ListOf():
            return _inner(shape.item)
        case MapOf():
            return _inner(shape.value)
    return []


def _part(title: str, table: Table) -> str:
    lines = [f"### {title}", "", "| field | holds | meaning | example |", "|---|---|---|---|"]
    for field in table.fields:
        doc = f"{field.doc} *({LATER})*" if field.later else field.doc
        cells = (f"`{field.name}`", says(field.shape), doc, f"`{field.example}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
