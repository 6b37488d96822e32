"""NVIDIA: through NVML by ctypes, with nvidia-smi as fallback, none otherwise.

Nothing here raises because of a driver: a symbol that an old library lacks, a query that a card does not
support or a GPU that fell off the bus costs that one fact.
"""

from __future__ import annotations

import os
import re

from argosy.agent import programs
from argosy.agent.cgroups import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL

_NVLINKS_MAX = 18
_REMOTE_GPU, _REMOTE_SWITCH = 0, 2
_PROCESSES_MAX = 256
_NOT_AVAILABLE = (1 << 64) - 1
_MIG_SLICES = {7: 8}  # memory slices of a card by how many instances it can have; else as many


def mig_index(card: int, gpu_instance: int, compute_instance: int = 0) -> int:
    """Our index of a MIG instance: stays the same while it exists, and is no card's."""
    return 1000 * (card + 1) + 10 * gpu_instance + compute_instance


def parts_of_index(index: int) -> tuple[int, int]:
    """The GPU instance and the compute instance of an index of ours.

    >>> parts_of_index(mig_index(3, 11, 2))
    (11, 2)
    """
    return index % 1000 // 10, index % 10


def catalog_name(name: str, memory_bytes: int) -> str:
    """The catalog's name of a card.

    >>> catalog_name("NVIDIA A100-SXM4-80GB", 80 << 30), catalog_name("Tesla T4", 15 << 30)
    ('A100-80GB', 'T4')
    >>> catalog_name("NVIDIA GeForce RTX 4090", 24 << 30), catalog_name("NVIDIA RTX A6000", 48 << 30)
    ('RTX4090', 'RTXA6000')
    """
    text = re.sub(r"\b(NVIDIA|Tesla|GeForce|Quadro|Graphics Device)\b", " ", name)
    memory_gib = memory_bytes / (1 << 30)
    rtx = re.search(r"\bRTX\s*(PRO\s*)?(A?\d{4})\s*(Ti|SUPER|Ada)?", text)
    if rtx:
        pro, number, kind = rtx.groups()
        suffix = {"Ada": "-Ada", "Ti": "Ti", "SUPER": "-SUPER", None: ""}[kind]
        return "RTX" + ("PRO" if pro else "") + number + suffix
    chip = re.search(r"\b(GB|GH|MI|[ABHKLMPTV])(\d{1,3})([A-Z]?)\b", text.replace("-", " "))
    if not chip:
        return "-".join(text.split()) or "GPU"
    model = "".join(chip.groups())
    if model == "A100" and memory_gib > 60:
        return "A100-80GB"
    if model == "V100" and memory_gib > 24:
        return "V100-32GB"
    if model in ("H100", "H200") and re.search(r"\bNVL\b", text):
        return model + "-NVL"
    return model


def discover(root: str) -> list[dict[str, object]]:
    """Every card and MIG instance of the machine, in the driver's order; none below another `root`, which
    has no library that could be asked."""
    if root:
        return []
    library = _library()
    if library is None:
        return _ask_nvidia_smi()
    return Nvml(library).devices()


def visible(devices: list[dict[str, object]], chosen: list[dict[str, object]]) -> dict[str, str]:
    """By UUID, which stays the same whatever a program's CUDA counts."""
    names = ",".join(str(each.get("uuid") or each["index"]) for each in chosen)
    return {"CUDA_VISIBLE_DEVICES": names, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def sample(root: str, devices: list[dict[str, object]]) -> None:
    """Bring memory in use and utilisation up to date, in place."""
    library = _library()
    if library is not None:
        Nvml(library).sample(devices)


def memory_by_process(indices: list[int]) -> dict[int, dict[int, int]]:
    """Bytes that each process (by pid) holds on these cards. Empty where the driver does not say; in a
    container whose pids are its own, the pids are the machine's."""
    library = _library()
    return Nvml(library).memory_by_process(indices) if library is not None else {}


def at_work(since_us: int) -> tuple[int, set[int]] | None:
    """The moment of the last work on a card after that one, as the driver counts them, and the pids of those
    who worked; None where the driver does not say, as on instances of MIG."""
    library = _library()
    return Nvml(library).at_work(since_us) if library is not None else None


_loaded: list[CDLL | None] = []


def _library() -> CDLL | None:
    if not _loaded:
        _loaded.append(_load())
    return _loaded[0]


def _load() -> CDLL | None:
    path = os.environ.get("ARGOSY_NVML_LIBRARY")
    signs = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg")  # the last: Linux inside Windows
    if not path and not any(map(os.path.exists, signs)):
        return None  # and spare a machine without GPU the import of ctypes
    import ctypes

    for name in [path] if path else ["libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1"]:
        try:
            library = ctypes.CDLL(name)
            if library.nvmlInit_v2() == 0:
                return library
        except (OSError, AttributeError):
            continue
    return None


class Nvml:
    """The queries that we need, each of which may fail by itself."""

    def __init__(self, library: CDLL) -> None:
        import ctypes as c

        class PciInfo(c.Structure):
            _fields_ = (
                ("legacy", c.c_char * 16),
                ("domain", c.c_uint),
                ("bus", c.c_uint),
                ("device", c.c_uint),
                ("device_id", c.c_uint),
                ("subsystem_id", c.c_uint),
                ("bus_id", c.c_char * 32),
            )

        class Memory(c.Structure):
            _fields_ = (("total", c.c_ulonglong), ("free", c.c_ulonglong), ("used", c.c_ulonglong))

        class Utilisation(c.Structure):
            _fields_ = (("gpu", c.c_uint), ("memory", c.c_uint))

        class InstanceInfo(c.Structure):
            _fields_ = (
                ("device", c.c_void_p),
                ("id", c.c_uint),
                ("profile", c.c_uint),
                ("start", c.c_uint),
                ("size", c.c_uint),
            )

        class Process(c.Structure):
            _fields_ = (
                ("pid", c.c_uint),
                ("memory", c.c_ulonglong),
                ("gpu_instance", c.c_uint),
                ("compute_instance", c.c_uint),
            )

        class Work(c.Structure):
            _fields_ = (
                ("pid", c.c_uint),
                ("at_us", c.c_ulonglong),
                ("percent", c.c_uint),
                ("memory", c.c_uint),
                ("encoder", c.c_uint),
                ("decoder", c.c_uint),
            )

        self._Process, self._Work = Process, Work
        self._InstanceInfo = InstanceInfo
        self._c = c
        self._library = library
        self._PciInfo = PciInfo
        self._Memory = Memory
        self._Utilisation = Utilisation

    def _ask(self, names: str, *arguments: object) -> bool:
        """Call the first of these functions that the library has; True when it succeeded."""
        for name in names.split():
            try:
                function = getattr(self._library, name)
            except AttributeError:
                continue
            try:
                return bool(function(*arguments) == 0)
            except (OSError, ValueError):
                return False
        return False

    def _text(self, name: str, handle: object) -> str:
        buffer = self._c.create_string_buffer(96)
        return buffer.value.decode("utf-8", "replace") if self._ask(name, handle, buffer, 96) else ""

    def _handle(self, index: int) -> object | None:
        handle = self._c.c_void_p()
        found = self._ask(
            "nvmlDeviceGetHandleByIndex_v2 nvmlDeviceGetHandleByIndex", index, self._c.byref(handle)
        )
        return handle if found else None

    def _number(self, names: str, handle: object, otherwise: int = -1) -> int:
        found = self._c.c_uint()
        return found.value if self._ask(names, handle, self._c.byref(found)) else otherwise

    def devices(self) -> list[dict[str, object]]:
        """Devices; what starts with `_` stays here: `_capability` (major), `_mode` (compute mode), `_mig`
        (for a card, whether it is in MIG mode; for an instance, its place on the card)."""
        count = self._c.c_uint()
        if not self._ask("nvmlDeviceGetCount_v2 nvmlDeviceGetCount", self._c.byref(count)):
            return []
        found: list[dict[str, object]] = []
        handles: dict[int, object] = {}
        for index in range(min(count.value, 256)):
            handle = self._handle(index)
            if handle is None:
                continue  # off the bus
            handles[index] = handle
            memory = self._Memory()
            self._ask("nvmlDeviceGetMemoryInfo", handle, self._c.byref(memory))
            name = self._text("nvmlDeviceGetName", handle)
            pci = self._PciInfo()
            bus = ""
            if self._ask("nvmlDeviceGetPciInfo_v3 nvmlDeviceGetPciInfo_v2", handle, self._c.byref(pci)):
                bus = pci.bus_id.decode("ascii", "replace")
            found.append(
                {
                    "index": index,
                    "vendor": "nvidia",
                    "model": catalog_name(name, memory.total),
                    "name": name,
                    "uuid": self._text("nvmlDeviceGetUUID", handle),
                    "memory_bytes": memory.total,
                    "numa": self._numa(handle, bus),
                    "pci": bus,
                }
            )
            self._add_traits(found, handle)
        cards = {str(d["pci"]): int(str(d["index"])) for d in found if "mig_profile" not in d}
        links = self._nvlinks(handles, cards)
        for device in found:
            if "mig_profile" in device:
                continue
            row = [links.get((int(str(device["index"])), other), 0) for other in range(count.value)]
            if any(row):
                device["nvlinks"] = row
        self.sample(found)
        return found

    def _add_traits(self, found: list[dict[str, object]], handle: object) -> None:
        """How the card that was found last can be shared; behind it, its MIG instances."""
        card = found[-1]
        index = int(str(card["index"]))
        major, minor = self._c.c_int(), self._c.c_int()
        if self._ask(
            "nvmlDeviceGetCudaComputeCapability", handle, self._c.byref(major), self._c.byref(minor)
        ):
            card["_capability"] = major.value
        card["_mode"] = self._number("nvmlDeviceGetComputeMode", handle)
        current, pending = self._c.c_uint(), self._c.c_uint()
        self._ask("nvmlDeviceGetMigMode", handle, self._c.byref(current), self._c.byref(pending))
        if not current.value:
            return
        most = self._number("nvmlDeviceGetMaxMigDeviceCount", handle, 0)
        card["_mig"] = True
        card["mig_slots"] = [0, _MIG_SLICES.get(most, most)]  # a card with slots gives instances, not itself
        for place in range(most):
            instance = self._c.c_void_p()
            if not self._ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, place, self._c.byref(instance)):
                continue
            memory, info, gpu_instance = self._Memory(), self._InstanceInfo(), self._c.c_void_p()
            self._ask("nvmlDeviceGetMemoryInfo", instance, self._c.byref(memory))
            name = self._text("nvmlDeviceGetName", instance)
            number = self._number("nvmlDeviceGetGpuInstanceId", instance, place)
            part = self._number("nvmlDeviceGetComputeInstanceId", instance, 0)
            if self._ask("nvmlDeviceGetGpuInstanceById", handle, number, self._c.byref(gpu_instance)):
                self._ask("nvmlGpuInstanceGetInfo", gpu_instance, self._c.byref(info))  # may need rights
            found.append(
                {
                    "index": mig_index(index, number, part),
                    "vendor": "nvidia",
                    "model": card["model"],
                    "name": name,
                    "uuid": self._text("nvmlDeviceGetUUID", instance),
                    "memory_bytes": memory.total,
                    "numa": card["numa"],
                    "pci": card["pci"],
                    "mig_profile": name.rpartition(" MIG ")[2],
                    "mig_parent": index,
                    "mig_slots": [info.start, info.size],
                    "_mig": place,
                    "_capability": card.get("_capability", 0),
                    "_mode": card["_mode"],
                }
            )

    def _numa(self, handle: object, bus: str) -> int:
        # The kernel writes PCI domains with four digits, NVML with eight.
        text = read_text("/sys/bus/pci/devices/%s/numa_node" % bus.lower()[4:]).strip()
        if text and text != "-1":
            return int(text)
        node = self._c.c_uint()
        if self._ask("nvmlDeviceGetNumaNodeId", handle, self._c.byref(node)):
            return node.value
        return -1

    def _nvlinks(self, handles: dict[int, object], by_bus: dict[str, int]) -> dict[tuple[int, int], int]:
        """Links between each two devices. Through a switch every link of a device reaches every other one."""
        direct: dict[tuple[int, int], int] = {}
        switched: dict[int, int] = {}
        for index, handle in handles.items():
            for link in range(_NVLINKS_MAX):
                active = self._c.c_uint()
                if not self._ask("nvmlDeviceGetNvLinkState", handle, link, self._c.byref(active)):
                    break
                if not active.value:
                    continue
                kind = self._c.c_int(_REMOTE_GPU)
                self._ask("nvmlDeviceGetNvLinkRemoteDeviceType", handle, link, self._c.byref(kind))
                if kind.value == _REMOTE_SWITCH:
                    switched[index] = switched.get(index, 0) + 1
                    continue
                pci = self._PciInfo()
                known = self._ask(
                    "nvmlDeviceGetNvLinkRemotePciInfo_v2 nvmlDeviceGetNvLinkRemotePciInfo",
                    handle,
                    link,
                    self._c.byref(pci),
                )
                other = by_bus.get(pci.bus_id.decode("ascii", "replace")) if known else None
                if other is not None:
                    direct[index, other] = direct.get((index, other), 0) + 1
        for one, count in switched.items():
            for other, others in switched.items():
                if one != other:
                    direct[one, other] = direct.get((one, other), 0) + min(count, others)
        return direct

    def memory_by_process(self, indices: list[int]) -> dict[int, dict[int, int]]:
        found: dict[int, dict[int, int]] = {}
        for index in indices:
            handle = self._handle(index)
            count = self._c.c_uint(_PROCESSES_MAX)
            listed = (self._Process * _PROCESSES_MAX)()
            names = "nvmlDeviceGetComputeRunningProcesses_v3 nvmlDeviceGetComputeRunningProcesses_v2"
            if handle is not None and self._ask(names, handle, self._c.byref(count), listed):
                found[index] = {
                    one.pid: one.memory for one in listed[: count.value] if one.memory < _NOT_AVAILABLE
                }
        return found

    def at_work(self, since_us: int) -> tuple[int, set[int]] | None:
        count = self._c.c_uint()
        if not self._ask("nvmlDeviceGetCount_v2 nvmlDeviceGetCount", self._c.byref(count)):
            return None
        found, last_us, is_known = set[int](), since_us, False
        for index in range(min(count.value, 256)):
            handle, amount = self._handle(index), self._c.c_uint(_PROCESSES_MAX)
            listed = (self._Work * _PROCESSES_MAX)()
            arguments = (handle, listed, self._c.byref(amount), self._c.c_ulonglong(since_us))
            if handle is None or not self._ask("nvmlDeviceGetProcessUtilization", *arguments):
                continue
            is_known = True
            for one in listed[: amount.value]:
                last_us = max(last_us, one.at_us)
                if one.percent:
                    found.add(one.pid)
        return (last_us, found) if is_known else None

    def sample(self, devices: list[dict[str, object]]) -> None:
        for device in devices:
            handle = self._handle(int(str(device.get("mig_parent", device["index"]))))
            if handle is not None and "mig_profile" in device:
                card, handle = handle, self._c.c_void_p()
                if not self._ask(
                    "nvmlDeviceGetMigDeviceHandleByIndex", card, device["_mig"], self._c.byref(handle)
                ):
                    handle = None
            memory, load = self._Memory(), self._Utilisation()
            if handle is None:
                device["utilisation_percent"] = -1
                continue
            if self._ask("nvmlDeviceGetMemoryInfo", handle, self._c.byref(memory)):
                device["memory_used_bytes"] = memory.used
            known = self._ask("nvmlDeviceGetUtilizationRates", handle, self._c.byref(load))
            device["utilisation_percent"] = load.gpu if known else -1


_SMI_FIELDS = "index,name,uuid,memory.total,memory.used,pci.bus_id,utilization.gpu"


def _ask_nvidia_smi() -> list[dict[str, object]]:
    program = programs.find("nvidia-smi")
    query = [program, "--query-gpu=" + _SMI_FIELDS, "--format=csv,noheader,nounits"]
    return parse_nvidia_smi(programs.answer_of(query, timeout_s=10)) if program else []


def parse_nvidia_smi(text: str) -> list[dict[str, object]]:
    """Devices from the lines that nvidia-smi prints for `_SMI_FIELDS`. Lines that do not fit are skipped."""
    found: list[dict[str, object]] = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 7 or not fields[0].isdigit():
            continue
        total, used, load = (int(f) if f.isdigit() else -1 for f in (fields[3], fields[4], fields[6]))
        memory_bytes = max(total, 0) << 20
        found.append(
            {
                "index": int(fields[0]),
                "vendor": "nvidia",
                "model": catalog_name(fields[1], memory_bytes),
                "name": fields[1],
                "uuid": fields[2],
                "memory_bytes": memory_bytes,
                "memory_used_bytes": max(used, 0) << 20,
                "pci": fields[5],
                "utilisation_percent": load,
            }
        )
    return found
