"""What `--json` prints: API types in one shape, whatever they hold.

Every field of every type is there, also where it has its default, and amounts of queues have their units in
their names: `gpus_milli`, `memory_bytes`. Clients that decode the API types read it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

#: Fields that hold amounts by the name of what is counted, see `model.tenancy`.
_AMOUNTS: Final = frozenset(
    ("borrows", "deserved", "fair", "guaranteed", "lend_limit", "lends", "limit", "used")
)
_UNITS: Final = {"cpus": "cpus_milli", "gpus": "gpus_milli", "memory": "memory_bytes"}


def complete(value: object) -> object:
    """The value as plain data with all fields.

    >>> from argosy.api.quota import QueueView
    >>> shape = complete(QueueView(path="acme", used={"gpus/A100": 500, "jobs": 2}))
    >>> shape["used"], shape["waiting"], shape["max_pending"]
    ({'gpus_milli/A100': 500, 'jobs': 2}, 0, None)
    """
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        made: dict[str, object] = {} if config.tag_field is None else {config.tag_field: config.tag}
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        for name, shown in names:
            held = getattr(value, name)
            is_amounts = name in _AMOUNTS and isinstance(held, Mapping)
            made[shown] = _with_units(held) if is_amounts else complete(held)
        return made
    if isinstance(value, Mapping):
        return {key: complete(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and not hasattr(value, "_fields"):
        return [complete(each) for each in value]
    return value


def _with_units(amounts: Mapping[str, int]) -> dict[str, int]:
    shown = {}
    for name, amount in amounts.items():
        what, slash, model = name.partition("/")
        shown[_UNITS.get(what, what) + slash + model] = amount
    return shown
