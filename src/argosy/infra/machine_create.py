"""`create` of a package whose driver is the common one of machines. Nothing of it is imported before."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argosy.infra.machine_driver import MachineDriver
    from argosy.infra.provider import Setting


def vendor_driver(package: str, vendor: str) -> Callable[[Setting], MachineDriver]:
    """The driver over the class `vendor` in the module `provider` of a package."""

    def create(setting: Setting) -> MachineDriver:
        from argosy.infra.machine_driver import MachineDriver

        return MachineDriver(
            getattr(importlib.import_module(f"{package}.provider"), vendor)(setting), setting
        )

    return create
