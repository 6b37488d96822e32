"""Infrastructures, one folder each: discovery by manifest. Nothing else in Argosy knows a provider's name.

A provider is a package with `MANIFEST` (plain data, cheap to import) and `create(setting) -> Provider` (which
imports the driver). Those in this folder are found by themselves; others come from the entry point group
`argosy.providers`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType

import msgspec

from argosy.infra.provider import Manifest, Provider
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids

GROUP = "argosy.providers"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver may use: a folder of its own, time, ids, and the environment (never logged)."""

    root: Path
    clock: Clock
    ids: Ids
    environ: Mapping[str, str]

    def __repr__(self) -> str:  # the environment holds credentials
        return f"Setting(root={self.root!r})"


class LoadedProviders:
    """`infra.provider.Providers`: drivers are imported when they are first asked for."""

    def __init__(self, modules: Mapping[str, ModuleType], setting: Setting) -> None:
        self._modules = modules
        self._setting = setting
        self._made: dict[str, Provider] = {}

    def get(self, name: str) -> Provider:
        """Raises ArgosyError `not-found` for a name that is not enabled."""
        if name not in self._made:
            module = self._modules.get(name)
            if module is None:
                raise _unknown(name, self._modules)
            setting = msgspec.structs.replace(self._setting, root=self._setting.root / name)
            made: Provider = module.create(setting)
            self._made[name] = made
        return self._made[name]

    def all(self) -> Mapping[str, Provider]:
        return MappingProxyType({name: self.get(name) for name in self._modules})


def find_providers() -> dict[str, ModuleType]:
    """Every installed provider by name. Only packages with a manifest are imported, no drivers.

    >>> "local" in find_providers()
    True
    """
    names = sorted(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__) if module.ispkg)
    modules = [importlib.import_module(name) for name in names]
    modules += [
        entry.load() for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=_entry_name)
    ]
    found: dict[str, ModuleType] = {}
    for module in modules:
        manifest: Manifest = module.MANIFEST
        found.setdefault(manifest.name, module)
    return found


def _entry_name(entry: importlib.metadata.EntryPoint) -> str:
    return entry.name


def load_providers(
    names: Sequence[str] | None, root: Path, clock: Clock, ids: Ids, environ: Mapping[str, str]
) -> LoadedProviders:
    """The providers with these names (None: those enabled by default); each gets a folder below `root`.

    Raises ArgosyError `not-found` for a name that is not installed.
    """
    found = find_providers()
    if names is None:
        names = [name for name, module in found.items() if module.MANIFEST.enabled_by_default]
    for name in names:
        if name not in found:
            raise _unknown(name, found)
    setting = Setting(root=root, clock=clock, ids=ids, environ=environ)
    return LoadedProviders({name: found[name] for name in names}, setting)


def _unknown(name: str, known: Mapping[str, ModuleType]) -> ArgosyError:
    return ArgosyError(
        "not-found", f"there is no provider `{name}`", hint=f"known are: {', '.join(sorted(known)) or 'none'}"
    )
