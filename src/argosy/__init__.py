"""Argosy: run any AI workload on any infrastructure from one YAML or Python API.

``import argosy`` stays cheap: the names of the SDK are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # Any: whatever the SDK exports under that name
    if name.startswith("_"):
        raise AttributeError(f"module 'argosy' has no attribute {name!r}")
    sdk = importlib.import_module("argosy.client")
    try:
        return getattr(sdk, name)
    except AttributeError:
        raise AttributeError(f"module 'argosy' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(["__version__", *importlib.import_module("argosy.client").__all__])
