"""Files of the state folder in which people name their clusters: `clusters: {NAME: {address: ...}}`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from argosy.model.errors import ArgosyError

S = TypeVar("S")
CLUSTER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class _File(msgspec.Struct, Generic[S], frozen=True, kw_only=True, forbid_unknown_fields=True):
    clusters: dict[str, S] = {}


def read_clusters(path: Path, settings: type[S], *, example: str, page: str) -> dict[str, S]:
    """Settings by the cluster's name; none when there is no such file. `example`: fields of one, and `page`
    tells of all, for the hint. Raises ArgosyError: `spec-invalid` for a file that cannot be used,
    `spec-unreadable`."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ArgosyError("spec-unreadable", f"{path} cannot be read: {error}") from None
    import yaml

    try:
        given = yaml.safe_load(text)
        clusters: dict[str, S] = msgspec.convert(
            given if given is not None else {},
            _File[settings],  # type: ignore[valid-type]
        ).clusters
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        said = " ".join(str(error).split())[:300]
        raise ArgosyError(
            "spec-invalid",
            f"{path} is not a list of clusters: {said}",
            hint=f"write `clusters: {{NAME: {{{example}}}}}`; {page} has all fields",
        ) from None
    for name in clusters:
        if not CLUSTER_NAME.fullmatch(name):
            raise ArgosyError(
                "spec-invalid",
                f"`{name}` in {path} is no name of a cluster",
                hint="use letters, digits, dots, dashes and underscores",
            )
    return clusters
