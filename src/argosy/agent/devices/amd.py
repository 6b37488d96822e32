"""AMD: the kernel's list of compute devices (kfd), and memory and load from the amdgpu driver's files."""

from __future__ import annotations

import os
import re

from argosy.agent.cgroups import read_text
from argosy.agent.devices import may_use, number_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.agent.devices import Found

#: PCI device ids of what the catalog knows, virtual functions too.
_MODELS = {
    0x6860: "MI25", 0x66A0: "MI50", 0x66A1: "MI50", 0x738C: "MI100", 0x738E: "MI100", 0x7408: "MI250X",
    0x740C: "MI250", 0x740F: "MI210", 0x7410: "MI210", 0x74A0: "MI300A", 0x74A1: "MI300X", 0x74B5: "MI300X",
    0x74A2: "MI308X", 0x74A8: "MI308X", 0x74A5: "MI325X", 0x74B9: "MI325X", 0x75A0: "MI350X",
    0x75B0: "MI350X", 0x75A3: "MI355X", 0x75B3: "MI355X", 0x7362: "V520", 0x73A1: "V620", 0x73AE: "V620",
    0x7460: "V710", 0x7461: "V710",
}  # fmt: skip
_XGMI = 11  # the type of a direct link between two devices
_LEAST_BYTES = 1 << 30  # less than this is a processor's built-in graphics


def _properties(path: str) -> dict[str, int]:
    found = {}
    for line in read_text(path).splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdigit():
            found[name] = int(value)
    return found


def model_of(device_id: int, product: str) -> str:
    """The catalog's name; what the card calls itself when the catalog does not know it.

    >>> model_of(0x74A1, ""), model_of(0, "AMD Instinct MI210"), model_of(0x744C, "Radeon RX 7900 XTX")
    ('MI300X', 'MI210', 'RX7900XTX')
    """
    if device_id in _MODELS:
        return _MODELS[device_id]
    text = re.sub(r"\b(AMD|ATI|Instinct|Radeon|Graphics|OAM|\(TM\))", " ", product)
    instinct = re.search(r"\bMI\d+\w?\b", text)
    return instinct.group() if instinct else "".join(text.split()) or "AMD-%04x" % device_id


def discover(root: str) -> Found:
    """Devices in the order in which ROCm numbers them; without those that this user may not open."""
    nodes = root + "/sys/class/kfd/kfd/topology/nodes"
    if not may_use(root + "/dev/kfd"):
        return []
    found: Found = []
    by_node: dict[int, int] = {}
    for node in sorted(int(name) for name in os.listdir(nodes) if name.isdigit()):
        where = "%s/%d" % (nodes, node)
        if number_in(where + "/gpu_id", 0) <= 0:
            continue  # a processor, or not this container's
        told = _properties(where + "/properties")
        if not may_use("%s/dev/dri/renderD%d" % (root, told.get("drm_render_minor", -1))):
            continue
        place = told.get("location_id", 0)
        pci = "%04x:%02x:%02x.%x" % (told.get("domain", 0), place >> 8 & 255, place >> 3 & 31, place & 7)
        folder = root + "/sys/bus/pci/devices/" + pci
        product = read_text(folder + "/product_name").strip()
        model = model_of(told.get("device_id", 0), product)
        memory = max(number_in(folder + "/mem_info_vram_total", 0), _banks(where))
        by_node[node] = len(by_node)  # ROCm counts it, also when it is too small for us
        if memory < _LEAST_BYTES:
            continue
        unique = told.get("unique_id", 0)
        found.append(
            {
                "index": by_node[node],
                "model": model,
                "vendor": "amd",
                "name": product or "AMD " + model,
                "uuid": "GPU-%016x" % unique if unique else "",
                "memory_bytes": memory,
                "numa": number_in(folder + "/numa_node"),
                "pci": pci,
                "_node": node,
            }
        )
    for device in found:
        row = [0] * len(by_node)
        links = "%s/%s/io_links" % (nodes, device["_node"])
        for name in os.listdir(links) if os.path.isdir(links) else ():
            link = _properties(links + "/" + name + "/properties")
            other = by_node.get(link.get("node_to", -1))
            if link.get("type") == _XGMI and other is not None:
                row[other] += 1
        if any(row):
            device["nvlinks"] = row
    sample(root, found)
    return found


def _banks(where: str) -> int:
    """Memory that the device calls its own, where amdgpu does not say (MI300A shares its memory)."""
    total = 0
    folder = where + "/mem_banks"
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        bank = _properties(folder + "/" + name + "/properties")
        if bank.get("heap_type") in (1, 2):
            total += bank.get("size_in_bytes", 0)
    return total


def sample(root: str, devices: Found) -> None:
    for device in devices:
        folder = root + "/sys/bus/pci/devices/" + str(device["pci"])
        used = number_in(folder + "/mem_info_vram_used")
        if used >= 0:
            device["memory_used_bytes"] = used
        device["utilisation_percent"] = number_in(folder + "/gpu_busy_percent")


def visible(devices: Found, chosen: Found) -> dict[str, str]:
    """ROCm hides the others from everything; HIP then counts what is left from 0."""
    if not chosen:
        return {"ROCR_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"}
    return {
        "ROCR_VISIBLE_DEVICES": ",".join(str(each.get("uuid") or each["_local"]) for each in chosen),
        "HIP_VISIBLE_DEVICES": ",".join(map(str, range(len(chosen)))),
    }
