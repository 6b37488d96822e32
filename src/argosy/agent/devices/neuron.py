"""AWS Trainium and Inferentia: the neuron driver's files, else what `neuron-ls` prints."""

from __future__ import annotations

import json
import os
import re

from argosy.agent import programs
from argosy.agent.cgroups import read_text
from argosy.agent.devices import may_use, number_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.agent.devices import Found

_MEMORY_GIB = {"Inferentia": 8, "Inferentia2": 32, "Trainium": 32, "Trainium2": 96, "Trainium3": 144}
_JOINED_CORES = ("Trainium2", "Trainium3")  # two physical cores are one, unless people say otherwise


def model_of(name: str) -> str:
    """The catalog's name: the first of each has no number.

    >>> model_of("Trainium1"), model_of("Trainium2"), model_of("inferentia2"), model_of("")
    ('Trainium', 'Trainium2', 'Inferentia2', '')
    """
    text = name.strip().capitalize()
    return text[:-1] if text.endswith("1") else text


def discover(root: str) -> Found:
    base = root + "/sys/devices/virtual/neuron_device"
    found = _from_files(root, base) if os.path.isdir(base) else []
    return found or (_from_neuron_ls() if not root else [])


def _from_files(root: str, base: str) -> Found:
    found: Found = []
    matches = [re.fullmatch(r"neuron(\d+)", name) for name in os.listdir(base)]
    for index in sorted(int(match.group(1)) for match in matches if match):
        where = "%s/neuron%d" % (base, index)
        if not may_use("%s/dev/neuron%d" % (root, index)):
            continue
        about = where + "/neuron_core0/info/architecture/device_name"
        if not os.path.exists(about):
            about = where + "/info/architecture/device_name"
        found.append(_device(index, model_of(read_text(about)), number_in(where + "/core_count", 1), "", 0))
        found[-1]["_folder"] = where
    sample(root, found)
    return found


def _from_neuron_ls() -> Found:
    program = programs.find("neuron-ls") or "/opt/aws/neuron/bin/neuron-ls"
    return parse_neuron_ls(programs.answer_of([program, "--json-output"], timeout_s=10))


def parse_neuron_ls(text: str) -> Found:
    """Devices from the JSON of `neuron-ls --json-output`; [] from anything else."""
    try:
        rows = json.loads(text[text.index("[") :])
        return [
            _device(
                int(row["neuron_device"]),
                model_of(str(row.get("device_type", row.get("instance_type", "")).partition(".")[0])),
                int(row["nc_count"]),
                str(row.get("bdf", "")),
                int(row.get("memory_size", 0)),
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _device(index: int, model: str, cores: int, pci: str, memory_bytes: int) -> dict[str, object]:
    model = {"Trn1": "Trainium", "Trn1n": "Trainium", "Trn2": "Trainium2", "Inf1": "Inferentia",
             "Inf2": "Inferentia2"}.get(model, model) or "Neuron"  # fmt: skip
    return {
        "index": index,
        "model": model,
        "vendor": "aws",
        "name": "AWS " + model,
        "memory_bytes": memory_bytes or _MEMORY_GIB.get(model, 0) << 30,
        "pci": "0000:" + pci.lower() if pci.count(":") == 1 else pci.lower(),
        "whole_only": True,  # one process has a core at a time
        "_cores": cores,
    }


def sample(root: str, devices: Found) -> None:
    """Memory in use; the driver's files tell no load."""
    for device in devices:
        used = 0
        for core in range(int(str(device["_cores"]))):
            path = "%s/neuron_core%d/stats/memory_usage/device_mem/present"
            used += number_in(path % (device.get("_folder", ""), core), 0)
        device["memory_used_bytes"] = used


def visible(devices: Found, chosen: Found) -> dict[str, str]:
    """The runtime counts cores over all devices of the machine."""
    told = os.environ.get("NEURON_LOGICAL_NC_CONFIG", "")
    cores: list[int] = []
    for each in chosen:
        joined = int(told) if told in ("1", "2") else 2 if each.get("model") in _JOINED_CORES else 1
        count = max(1, int(str(each.get("_cores", 1))) // joined)
        first = int(str(each["_local"])) * count
        cores += range(first, first + count)
    return {"NEURON_RT_VISIBLE_CORES": ",".join(map(str, cores))}
