"""Slices: accelerators whose name says over how many hosts they are spread, as TPUs are; a host is a node."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_TPU: Final = re.compile(r"tpu-(v\d\w*)-(\d+)", re.IGNORECASE)
_BY_CHIPS: Final = ("v5litepod", "v6e")  # the sizes of others count cores, of which a chip has two
_ONE_HOST: Final = 8  # chips or cores that one host has at most


def hosts_of(accelerator: str | None) -> int:
    """How many hosts one of it has.

    https://cloud.google.com/tpu/docs/system-architecture-tpu-vm

    >>> hosts_of("tpu-v5p-32"), hosts_of("tpu-v6e-16"), hosts_of("tpu-v6e-8"), hosts_of("H100")
    (4, 4, 1, 1)
    """
    found = _TPU.fullmatch(accelerator) if accelerator and accelerator[:4].lower() == "tpu-" else None
    if found is None or (size := int(found[2])) <= _ONE_HOST:
        return 1
    return size // (4 if found[1].lower() in _BY_CHIPS else 8)


def hosts_of_all(accelerators: Iterable[str | None]) -> int:
    """How many hosts each of them has, where it is the same number; else 1.

    >>> hosts_of_all(["tpu-v5p-32", "tpu-v6e-16"]), hosts_of_all(["tpu-v5p-32", "A100"])
    (4, 1)
    """
    hosts = {hosts_of(each) for each in accelerators}
    return hosts.pop() if len(hosts) == 1 else 1
