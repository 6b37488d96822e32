"""Infrastructures, one folder each: discovery by manifest. Nothing else in Argosy knows a provider's name.

A provider is a package with `MANIFEST` (plain data, cheap to import), and what it has of: `create(setting) ->
Provider`, which imports the driver (none: it cannot be launched on yet), and the module `prices`, which asks
its price service. Those in this folder are found by themselves; others come from the entry point group
`argosy.providers`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pkgutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

import msgspec

from argosy.infra.provider import Connected, Manifest, Provider, Setting
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.providers.enabling import Standing, named_in, standing_of

if TYPE_CHECKING:
    from argosy.catalog.refresh import PriceService
    from argosy.infra.agent_port import DialIn

GROUP = "argosy.providers"


class LoadedProviders:
    """`infra.provider.Providers`: drivers are imported when they are first asked for."""

    def __init__(self, modules: Mapping[str, ModuleType], setting: Setting) -> None:
        self._modules = modules
        self._setting = setting
        self._made: dict[str, Provider] = {}

    @property
    def names(self) -> list[str]:
        return list(self._modules)

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

    async def disconnect(self) -> None:
        """Connections that drivers keep go."""
        for provider in self._made.values():
            if isinstance(provider, Connected):
                await provider.disconnect()


def find_providers(*, with_driver: bool = False) -> dict[str, ModuleType]:
    """Every installed provider by name. Only manifests are imported, no drivers. `with_driver`:
    those of this folder that have none are not even looked at.

    >>> sorted(find_providers(with_driver=True))[:1], "local" in find_providers()
    (['aws'], True)
    """
    folders = sorted(
        Path(folder) / each.name
        for folder in __path__
        for each in pkgutil.iter_modules([folder])
        if each.ispkg
    )
    modules = [
        importlib.import_module(f"{__name__}.{folder.name}")
        for folder in folders
        if not with_driver or (folder / "provider.py").exists()
    ]
    entries = importlib.metadata.entry_points(group=GROUP)
    modules += [entry.load() for entry in sorted(entries, key=lambda entry: entry.name)]
    found: dict[str, ModuleType] = {}
    for module in modules:
        manifest: Manifest = module.MANIFEST
        found.setdefault(manifest.name, module)
    return found


def is_launchable(module: ModuleType) -> bool:
    """Whether there is a driver; else the folder holds prices only."""
    return hasattr(module, "create")


def find_manifests() -> list[Manifest]:
    """Of all that have a folder and all that have a name only (`planned`), by name."""
    from argosy.providers.planned import PLANNED

    installed = {name: module.MANIFEST for name, module in find_providers().items()}
    manifests: dict[str, Manifest] = {**{each.name: each for each in PLANNED}, **installed}
    return [manifests[name] for name in sorted(manifests)]


def price_services() -> dict[str, PriceService]:
    """How each provider's prices are asked for, and why those of others cannot be."""
    from argosy.catalog.refresh import PriceService

    return {
        name: PriceService(
            source=module.MANIFEST.prices,
            unpriced=module.MANIFEST.unpriced,
            module=partial(importlib.import_module, f"{module.__name__}.prices"),
        )
        for name, module in find_providers().items()
        if module.MANIFEST.prices is not None or module.MANIFEST.unpriced
    }


def load_providers(
    names: Sequence[str] | None,
    root: Path,
    clock: Clock,
    ids: Ids,
    environ: Mapping[str, str],
    dialled: DialIn | None = None,
) -> LoadedProviders:
    """The providers with these names (None: those that `environ` enables, see `enabling`); each gets a
    folder below `root`.

    Raises ArgosyError `not-found` for a name that is not installed.
    """
    found = {name: one for name, one in find_providers(with_driver=True).items() if is_launchable(one)}
    if names is None:
        unknown = sorted((named_in(environ) or frozenset()) - found.keys())
        if unknown:
            raise _unknown(unknown[0], found)
        names = [name for name, one in found.items() if standing_of(one.MANIFEST, environ).in_use]
    for name in names:
        if name not in found:
            raise _unknown(name, found)
    setting = Setting(root=root, clock=clock, ids=ids, environ=environ, home=root.parent, dialled=dialled)
    return LoadedProviders({name: found[name] for name in names}, setting)


def standings(environ: Mapping[str, str]) -> list[Standing]:
    """Of all that have a folder or a name, whether this server uses them, by name."""
    found = find_providers(with_driver=True)
    drivers = {name for name, module in found.items() if is_launchable(module)}
    return [
        standing_of(each, environ)
        if each.name in drivers
        else Standing(each.name, False, fact=f"Argosy cannot run on {each.name} yet: it has no driver")
        for each in find_manifests()
    ]


def what_is_missing(name: str, environ: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """The fact and the fix ("": none) about a provider that is not in use; None: there is no such name."""
    standing = next((each for each in standings(environ) if each.name == name), None)
    if standing is None:
        return None
    return standing.fact or f"{name} is not in use on this server", standing.fix


def _unknown(name: str, launchable: Mapping[str, ModuleType]) -> ArgosyError:
    able = ", ".join(sorted(launchable)) or "nothing"
    missing = what_is_missing(name)
    if missing is not None:
        return ArgosyError("not-found", missing[0], hint=missing[1] or f"it runs on: {able}")
    return ArgosyError("not-found", f"there is no provider `{name}`", hint=f"known are: {able}")
