"""NVIDIA Jetson boards: the model is in the device tree, and the memory is the machine's."""

from __future__ import annotations

import os
import re

from argosy.agent.cgroups import read_text
from argosy.agent.devices import number_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.agent.devices import Found

#: Where the load of the built-in GPU is written, in thousandths; by release of the board's software.
_LOADS = (
    "/sys/devices/platform/gpu.0/load",
    "/sys/devices/gpu.0/load",
    "/sys/class/devfreq/17000000.gpu/device/load",
)


def model_of(board: str, memory_bytes: int) -> str:
    """The catalog's name of a board; "" when the text names no Jetson. Modules that exist with different
    memory are told apart by what the kernel has of it.

    >>> model_of("NVIDIA Jetson AGX Orin Developer Kit", 61 << 30), model_of("NVIDIA Jetson Nano", 4 << 30)
    ('Jetson-AGX-Orin-64GB', 'Jetson-Nano')
    >>> model_of("NVIDIA Orin NX Developer Kit", 15 << 30), model_of("Raspberry Pi 5", 8 << 30)
    ('Jetson-Orin-NX-16GB', '')
    """
    if not re.search(r"\b(Jetson|Orin|Xavier|Tegra)\b", board):
        return ""
    gib = memory_bytes / (1 << 30)
    for words, sizes in (("AGX Orin", (32, 64)), ("Orin NX", (8, 16)), ("Orin Nano", (4, 8))):
        if words in board:
            size = sizes[1] if gib > sizes[0] else sizes[0]
            return "Jetson-%s-%dGB" % (words.replace(" ", "-"), size)
    rest = re.sub(r"\b(NVIDIA|Jetson|Developer Kit|Engineering Reference|Super|Module)\b|[-_]+", " ", board)
    return "-".join(["Jetson", *rest.split()])


def _memory(root: str) -> tuple[int, int]:
    told = {}
    for line in read_text(root + "/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        told[name] = int(value.split()[0]) * 1024
    total = told.get("MemTotal", 0)
    return total, total - told.get("MemAvailable", total)


def discover(root: str) -> Found:
    board = read_text(root + "/proc/device-tree/model").replace("\0", "").strip()
    model = model_of(board, _memory(root)[0])
    if not model:
        return []
    found: Found = [
        {"index": 0, "model": model, "vendor": "nvidia", "name": board, "memory_bytes": _memory(root)[0]}
    ]
    sample(root, found)
    return found


def sample(root: str, devices: Found) -> None:
    used = _memory(root)[1]
    load = next((root + path for path in _LOADS if os.path.exists(root + path)), "")
    permille = number_in(load) if load else -1
    for device in devices:
        device["memory_used_bytes"] = used
        device["utilisation_percent"] = permille // 10 if permille >= 0 else -1


def visible(devices: Found, chosen: Found) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(str(each["_local"]) for each in chosen)}
