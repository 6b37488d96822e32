"""Argosy: run any AI workload on any infrastructure from one YAML or Python API.

``import argosy`` stays cheap: the names of the SDK are resolved on first use.
Type checkers read `__init__.pyi`.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_MODULES = ("aio", "clouds", "exceptions", "jobs", "serve")
_HOMES = {"AsyncClient": "argosy.client.async_client"}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"argosy.{name}")
    if not name.startswith("_"):
        value = getattr(importlib.import_module(_HOMES.get(name, "argosy.client.sdk")), name, None)
        if value is not None:
            globals()[name] = value
            return value
    raise AttributeError(f"module 'argosy' has no attribute {name!r}")


def __dir__() -> list[str]:
    sdk = importlib.import_module("argosy.client.sdk")
    return sorted(["__version__", *_HOMES, *_MODULES, *sdk.__all__])
