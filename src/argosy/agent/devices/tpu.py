"""Google TPU chips of this host, by their PCI ids. The driver tells no load."""

from __future__ import annotations

import os

from argosy.agent.devices import may_use, number_in, pci

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.agent.devices import Found

_GOOGLE = "1ae0"
_MODELS = {
    "005e": "tpu-v4", "0062": "tpu-v5p", "0063": "tpu-v5litepod", "006f": "tpu-v6e", "0076": "tpu-v7",
}  # fmt: skip
_OLD = "0027"  # v2 and v3 have one id and differ in the board's
_OLD_BOARDS = {"004e": "tpu-v2", "004f": "tpu-v3"}
_MEMORY_GIB = {
    "tpu-v2": 16, "tpu-v3": 32, "tpu-v4": 32, "tpu-v5litepod": 16, "tpu-v5p": 95, "tpu-v6e": 32,
    "tpu-v7": 192,
}  # fmt: skip
_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}


def discover(root: str) -> Found:
    """Chips in the order of the bus, which is the order of TPU_VISIBLE_CHIPS."""
    found: Found = []
    files = sorted(
        name
        for name in (os.listdir(root + "/dev") if os.path.isdir(root + "/dev") else ())
        if name[:5] == "accel"
    )
    for card in pci.cards(root):
        if card.vendor != _GOOGLE:
            continue
        model = _OLD_BOARDS.get(card.subsystem, "") if card.device == _OLD else _MODELS.get(card.device, "")
        index = len(found)
        opened = "/dev/accel%d" % index if files else "/dev/vfio/vfio"
        if not model or not may_use(root + opened):
            continue
        found.append(
            {
                "index": index,
                "model": model,
                "vendor": "google",
                "name": "Google " + model.replace("tpu-", "TPU "),
                "memory_bytes": _MEMORY_GIB[model] << 30,
                "numa": number_in(root + "/sys/bus/pci/devices/" + card.address + "/numa_node"),
                "pci": card.address,
                "whole_only": True,  # one process has a chip at a time
            }
        )
    return found


def sample(root: str, devices: Found) -> None:
    """The driver's files tell neither load nor memory in use."""


def visible(devices: Found, chosen: Found) -> dict[str, str]:
    """All chips of a host need no word, and keep what the host says of its slice. A part of them is a slice
    of its own, whose shape libtpu must be told."""
    if chosen and len(chosen) == len(devices):
        return {}
    env = {"TPU_VISIBLE_CHIPS": ",".join(str(each["_local"]) for each in chosen)}
    bounds = _BOUNDS.get(len(chosen))
    if bounds:
        env["TPU_CHIPS_PER_PROCESS_BOUNDS"] = bounds
        env["TPU_PROCESS_BOUNDS"] = "1,1,1"
    return env
