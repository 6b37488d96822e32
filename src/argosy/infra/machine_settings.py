"""What a task's `config` tells one cloud, as a type. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from argosy.infra import border

T = TypeVar("T")


def settings_in(config: str, place: str, kind: type[T]) -> T:
    """The part of a `config` (JSON text) that stands under a cloud's name; what is not said is as in a fresh
    `kind`. Raises `RequestRefused` for what cannot be meant."""
    sections: Mapping[str, Any] = msgspec.json.decode(config) if config else {}
    try:
        return msgspec.convert(sections.get(place) or {}, kind)
    except msgspec.ValidationError as error:
        raise border.RequestRefused(f"config.{place}", f"`config.{place}` of the task: {error}") from None
