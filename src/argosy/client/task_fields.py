"""Fields of tasks as programs give them, in the words of the YAML."""

from __future__ import annotations

from collections.abc import Mapping

from argosy.client.errors import NotSupportedError
from argosy.client.telling import in_python
from argosy.model.errors import ArgosyError


def sizes_of(data: str | Mapping[str, float], size_gb: float | None) -> dict[str, float]:
    if isinstance(data, str):
        return {data: size_gb or 0}
    return dict(data)


def as_text(text: object) -> object:
    """Shell text; a list of lines is one text. Errors: "unsupported" for a function."""
    if callable(text):
        raise NotSupportedError(
            "unsupported",
            "`run` is a function; only shell text can be run",
            hint="write it to a file in `workdir` and run that: `run='python train.py'`",
        )
    return "\n".join(map(str, text)) if isinstance(text, list | tuple) else text


def hours_of(estimator: object) -> object:
    """Errors: "unsupported" for a function."""
    if callable(estimator):
        raise NotSupportedError(
            "unsupported",
            "the time of a task cannot be a function",
            hint="give hours: `set_time_estimator(6.5)`; earlier runs of the same name tell it by machine",
        )
    return estimator


def mapping_in(text: str, field: str) -> Mapping[str, object]:
    """A mapping of a YAML text as plain values."""
    import yaml

    try:
        document = next(iter(yaml.safe_load_all(text)), None)
    except yaml.YAMLError:
        return {}  # building the task tells what is wrong
    return as_mapping(as_mapping(document).get(field))


def candidates_of(resources: Mapping[str, object]) -> list[dict[str, object]]:
    """`any_of` and `ordered` one by one, each with what all have.

    >>> candidates_of({"cpus": 2, "any_of": [{"use_spot": True}, {"use_spot": False}]})
    [{'cpus': 2, 'use_spot': True}, {'cpus': 2, 'use_spot': False}]
    """
    common = {name: value for name, value in resources.items() if name not in ("any_of", "ordered")}
    listed = resources.get("any_of") or resources.get("ordered")
    return [{**common, **as_mapping(one)} for one in listed] if isinstance(listed, list) else [common]


def is_bucket(source: object) -> bool:
    return isinstance(source, Mapping) or (isinstance(source, str) and "://" in source)


def as_mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def check_fields(fields: Mapping[str, object], where: str, env: Mapping[str, str] | None = None) -> None:
    from argosy.spec import task_from_mapping

    try:
        task_from_mapping(fields, where=where, env=env or {})
    except ArgosyError as error:
        raise in_python(error) from None
