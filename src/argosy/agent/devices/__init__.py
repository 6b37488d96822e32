"""Accelerators of this machine, whoever made them.

Each maker has a module with `discover(root)`, `sample(root, devices)` and `visible(devices, chosen)`. It is
loaded only where a sign of its driver is found, so that a machine without accelerators pays for a few `stat`
calls.
`root` is put before every path of /sys, /proc and /dev ("" is this machine; tests give a folder).

A device is a dictionary with the fields of `argosy.model.facts.Device`; keys that start with `_` stay on the
node.
Nothing here raises because of a driver: what a driver does not say costs that one fact.
"""

from __future__ import annotations

import os

from argosy.agent.cgroups import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    Found = list[dict[str, object]]

    class Maker(Protocol):
        def discover(self, root: str) -> Found: ...
        def sample(self, root: str, devices: Found) -> None: ...
        def visible(self, devices: Found, chosen: Found) -> dict[str, str]: ...


#: Modules in the order in which they are asked, and one path of each that must exist. A Jetson also answers
#: as NVIDIA: its own module is asked first and the other one then is not.
_SIGNS = (
    ("jetson", ("/proc/device-tree/model",)),
    ("nvidia", ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg")),  # the last: Linux inside Windows
    ("amd", ("/sys/class/kfd/kfd/topology/nodes",)),
    ("gaudi", ("/sys/class/accel", "/sys/class/habanalabs")),
    ("tpu", ("/dev/accel0", "/dev/vfio/vfio")),
    ("neuron", ("/sys/devices/virtual/neuron_device", "/dev/neuron0")),
)
_NEXT_MAKER = 300  # indices of a second maker's devices on one machine start here, of a third at 400


def _maker(name: str) -> Maker:
    # `importlib` itself would be one more module to load
    module: Maker = __import__("argosy.agent.devices." + name, fromlist=["discover"])
    return module


def has_signs(root: str = "") -> bool:
    """Whether a maker's driver has to be asked, which may take long."""
    signed = (sign for _, signs in _SIGNS for sign in signs)
    return _has_nvidia_program(root) or any(os.path.exists(root + sign) for sign in signed)


def discover(root: str = "") -> Found:
    """Every accelerator that programs can use, each maker's in its driver's order."""
    found: Found = []
    for position, (name, signs) in enumerate(_SIGNS):
        is_here = any(os.path.exists(root + sign) for sign in signs)
        if name == "nvidia":
            is_here = not found and (is_here or _has_nvidia_program(root))
        if not is_here:
            continue
        first = _NEXT_MAKER + 100 * position if found else 0
        for device in _maker(name).discover(root):
            device["_local"] = device["index"]
            if first:
                device["index"] = first + int(str(device["index"]))
                device.pop("nvlinks", None)  # counted by index
            device["_maker"] = name
            found.append(device)
    return found


def _has_nvidia_program(root: str) -> bool:
    from argosy.agent import programs

    return not root and bool("ARGOSY_NVML_LIBRARY" in os.environ or programs.find("nvidia-smi"))


def _by_maker(devices: Found) -> dict[str, Found]:
    groups: dict[str, Found] = {}
    for device in devices:
        groups.setdefault(str(device["_maker"]), []).append(device)
    return groups


def sample(devices: Found, root: str = "") -> None:
    """Bring memory in use and utilisation up to date, in place."""
    for name, group in _by_maker(devices).items():
        _maker(name).sample(root, group)


def visible(devices: Found, indices: list[int]) -> dict[str, str]:
    """The variables by which a program sees just these of the machine's devices. {} where there is nothing to
    hide."""
    env: dict[str, str] = {}
    groups = _by_maker(devices)
    if indices and not groups:
        groups = {"nvidia": []}  # a driver that does not answer at the moment
    for name, group in groups.items():
        known = {device["index"]: device for device in group}
        chosen = [
            known.get(index, {"index": index, "_local": index})
            for index in indices
            if index in known or len(groups) == 1
        ]
        env.update(_maker(name).visible(group, chosen))
    return env


def unused(devices: Found, root: str = "") -> list[dict[str, str]]:
    """Accelerators on the PCI bus that programs cannot use (UnusedDevice), with the reason."""
    if not os.path.exists(root + "/sys/bus/pci/devices"):
        return []
    from argosy.agent.devices import pci

    return pci.unused(root, {pci.short(str(device.get("pci", ""))) for device in devices})


def memory_by_process(indices: list[int]) -> dict[int, dict[int, int]]:
    """Bytes that each process (by pid) holds on these cards. Empty where the driver does not say; in a
    container whose pids are its own, the pids are the machine's."""
    from argosy.agent.devices import nvidia

    return nvidia.memory_by_process(indices)


def at_work(since_us: int) -> tuple[int, set[int]] | None:
    """The moment (microseconds) of the last work on an accelerator after that one, and the pids of those who
    worked; None where no driver says it by program."""
    from argosy.agent.devices import nvidia

    return nvidia.at_work(since_us)


def number_in(path: str, otherwise: int = -1) -> int:
    """The whole number in a file of /sys; `otherwise` when there is none."""
    try:
        return int(read_text(path).strip(), 0)
    except ValueError:
        return otherwise


def may_use(*paths: str) -> bool:
    """Whether this user may read and write all of these device files."""
    return all(os.access(path, os.R_OK | os.W_OK) for path in paths)
