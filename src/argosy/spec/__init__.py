"""YAML, Python values and flags to the model, with the place of every error. Pure: no files, no clock."""

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
