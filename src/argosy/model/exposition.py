"""Figures as Prometheus reads them: its text format 0.0.4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    """One line. Whole numbers keep all of their digits: a counter that is rounded shows wrong rates.

    >>> sample("bytes_total", {"folder": 'a"b'}, 1234567890)
    'bytes_total{folder="a\\\\"b"} 1234567890'
    >>> sample("seconds", {}, 0.25), sample("ready", {}, 1.0)
    ('seconds 0.25', 'ready 1')
    """
    told = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
    figure = str(int(value)) if value == int(value) else f"{value:g}"
    return f"{name}{{{told}}} {figure}" if told else f"{name} {figure}"
