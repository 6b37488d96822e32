"""YAML, Python values and flags to the model, with the place of every error. Pure: no files, no clock.

Names load what they need on first use: who only checks a name does not pay for the parser.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from argosy.spec.findings import Warning_
    from argosy.spec.names import check_name, parse_assignments, parse_env_text
    from argosy.spec.parse import Overrides, Parsed, parse_task, task_from_mapping
    from argosy.spec.render import render_task
    from argosy.spec.schema import render_field_table, task_schema

__all__ = [
    "Overrides",
    "Parsed",
    "Warning_",
    "check_name",
    "parse_assignments",
    "parse_env_text",
    "parse_task",
    "render_field_table",
    "render_task",
    "task_from_mapping",
    "task_schema",
]

_HOMES: Final = {
    "Warning_": "findings",
    "check_name": "names",
    "parse_assignments": "names",
    "parse_env_text": "names",
    "Overrides": "parse",
    "Parsed": "parse",
    "parse_task": "parse",
    "task_from_mapping": "parse",
    "render_task": "render",
    "render_field_table": "schema",
    "task_schema": "schema",
}


def __getattr__(name: str) -> Any:  # Any: whatever stands under that name in its module
    if name not in _HOMES:
        raise AttributeError(f"module 'argosy.spec' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"argosy.spec.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
