"""Intel Gaudi: what the habanalabs driver writes below /sys/class/accel (older: /sys/class/habanalabs). The
driver tells no load, and the memory is known by the model."""

from __future__ import annotations

import os
import re

from argosy.agent.cgroups import read_text
from argosy.agent.devices import may_use, number_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.agent.devices import Found

_MEMORY_GIB = {"Gaudi": 32, "Gaudi2": 96, "Gaudi3": 128}


def model_of(text: str) -> str:
    """The catalog's name of a `device_type`; "" when it is no Gaudi.

    >>> model_of("GAUDI2B"), model_of("GAUDI SEC"), model_of("GOYA")
    ('Gaudi2', 'Gaudi', '')
    """
    match = re.match(r"GAUDI(\d?)", text.strip().upper())
    return ("Gaudi" + match.group(1)) if match else ""


def discover(root: str) -> Found:
    found: Found = []
    for base, pattern, file in (("accel", r"accel(\d+)", "accel/accel"), ("habanalabs", r"hl(\d+)", "hl")):
        folder = root + "/sys/class/" + base
        matches = [
            re.fullmatch(pattern, name) for name in (os.listdir(folder) if os.path.isdir(folder) else ())
        ]
        for index in sorted(int(match.group(1)) for match in matches if match):
            name = pattern.partition("(")[0] + str(index)
            where = folder + "/" + name + "/device"
            model = model_of(read_text(where + "/device_type"))
            if not model or not may_use("%s/dev/%s%d" % (root, file, index)):
                continue
            pci = read_text(where + "/pci_addr").strip().lower()
            found.append(
                {
                    "index": index,
                    "model": model,
                    "vendor": "intel",
                    "name": "Intel " + model,
                    "memory_bytes": _MEMORY_GIB.get(model, 0) << 30,
                    "numa": number_in(root + "/sys/bus/pci/devices/" + pci + "/numa_node"),
                    "pci": pci,
                    "whole_only": True,  # one process has a Gaudi at a time
                    "_module": number_in(where + "/module_id"),
                }
            )
        if found:
            break
    return found


def sample(root: str, devices: Found) -> None:
    """The driver's files tell neither load nor memory in use."""


def visible(devices: Found, chosen: Found) -> dict[str, str]:
    """The container runtime goes by device numbers, the SDK by the modules of the board."""
    env = {"HABANA_VISIBLE_DEVICES": ",".join(str(each["_local"]) for each in chosen) or "void"}
    modules = [int(str(each.get("_module", -1))) for each in chosen]
    if modules and min(modules) >= 0:
        env["HABANA_VISIBLE_MODULES"] = ",".join(map(str, modules))
    return env
