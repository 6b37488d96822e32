"""Accelerators of all makers, found in folders that look like the /sys, /proc and /dev of such machines."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import msgspec
import pytest

from argosy.agent import devices
from argosy.agent.devices import amd, gaudi, jetson, neuron, pci, tpu
from argosy.agent.node import Node
from argosy.agent.orders import checked_order
from argosy.agent.sharing import CannotShare, Sharing
from argosy.model.facts import Device, UnusedDevice

GIB = 1 << 30


class Machine:
    """A folder with the files that drivers write."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def write(self, path: str, text: object = "") -> None:
        file = Path(self.root + path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def card(self, address: str, vendor: str, device: str, kind: str = "1200", driver: str = "") -> str:
        folder = f"/sys/bus/pci/devices/{address}"
        for name, value in (("class", f"0x{kind}00"), ("vendor", f"0x{vendor}"), ("device", f"0x{device}")):
            self.write(f"{folder}/{name}", value)
        if driver:
            where = Path(self.root + f"/sys/bus/pci/drivers/{driver}")
            where.mkdir(parents=True, exist_ok=True)
            Path(self.root + folder + "/driver").symlink_to(where)
        return folder

    def instinct(self, count: int, *, linked: bool = False) -> None:
        """MI300X cards behind one processor, which is the kernel's node 0."""
        nodes = "/sys/class/kfd/kfd/topology/nodes"
        self.write("/dev/kfd")
        self.write(f"{nodes}/0/gpu_id", 0)
        self.write(f"{nodes}/0/properties", "cpu_cores_count 96\nsimd_count 0")
        for card in range(count):
            bus = 5 + card
            where = f"{nodes}/{card + 1}"
            self.write(f"{where}/gpu_id", 1000 + card)
            self.write(
                f"{where}/properties",
                f"simd_count 1216\ndomain 0\nlocation_id {bus << 8}\ndevice_id {0x74A1}\n"
                f"drm_render_minor {128 + card}\nunique_id {0xABC0 + card}",
            )
            for other in range(count if linked else 0):
                if other != card:
                    link = f"{where}/io_links/{other}/properties"
                    self.write(link, f"type 11\nnode_from {card + 1}\nnode_to {other + 1}")
            self.write(f"/dev/dri/renderD{128 + card}")
            folder = self.card(f"0000:{bus:02x}:00.0", "1002", "74a1", driver="amdgpu")
            self.write(f"{folder}/mem_info_vram_total", 192 * GIB)
            self.write(f"{folder}/mem_info_vram_used", card * GIB)
            self.write(f"{folder}/gpu_busy_percent", 10 * card)
            self.write(f"{folder}/numa_node", card // 2)

    def found(self) -> list[dict[str, object]]:
        return devices.discover(self.root)

    def facts(self) -> list[Device]:
        plain = [{k: v for k, v in each.items() if k[0] != "_"} for each in self.found()]
        return msgspec.convert(plain, list[Device])

    def unused(self) -> list[UnusedDevice]:
        return msgspec.convert(devices.unused(self.found(), self.root), list[UnusedDevice])


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_without_any_is_asked_nothing(machine: Machine) -> None:
    assert machine.found() == []
    assert machine.unused() == []
    assert devices.visible([], []) == {}


def test_amd(machine: Machine) -> None:
    machine.instinct(4, linked=True)
    found = machine.facts()
    assert [(each.index, each.model, each.vendor, each.memory_bytes >> 30) for each in found] == [
        (index, "MI300X", "amd", 192) for index in range(4)
    ]
    assert [
        (each.pci, each.numa, each.memory_used_bytes >> 30, each.utilisation_percent) for each in found
    ] == [
        ("0000:05:00.0", 0, 0, 0),
        ("0000:06:00.0", 0, 1, 10),
        ("0000:07:00.0", 1, 2, 20),
        ("0000:08:00.0", 1, 3, 30),
    ]
    assert found[1].nvlinks == (1, 0, 1, 1)
    assert not found[0].whole_only
    assert machine.unused() == []
    assert devices.visible(machine.found(), [2, 0]) == {
        "ROCR_VISIBLE_DEVICES": "GPU-000000000000abc2,GPU-000000000000abc0",
        "HIP_VISIBLE_DEVICES": "0,1",
    }
    assert devices.visible(machine.found(), []) == {"ROCR_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"}


def test_amd_load_is_read_anew(machine: Machine) -> None:
    machine.instinct(1)
    found = machine.found()
    machine.write("/sys/bus/pci/devices/0000:05:00.0/gpu_busy_percent", 97)
    machine.write("/sys/bus/pci/devices/0000:05:00.0/mem_info_vram_used", 5 * GIB)
    devices.sample(found, machine.root)
    assert (found[0]["utilisation_percent"], found[0]["memory_used_bytes"]) == (97, 5 * GIB)


def test_amd_graphics_of_a_processor_are_no_accelerator(machine: Machine) -> None:
    """It is counted by ROCm all the same: the card behind it keeps its number."""
    machine.instinct(2)
    machine.write("/sys/bus/pci/devices/0000:05:00.0/mem_info_vram_total", 512 << 20)
    assert [each.index for each in machine.facts()] == [1]
    (left,) = machine.unused()
    assert left.reason == "it is not in ROCm's list of devices, or has less than 1 GiB of its own memory"


def test_amd_without_its_compute_device_says_why(machine: Machine) -> None:
    machine.instinct(1)
    Path(machine.root, "dev/kfd").unlink()
    assert machine.facts() == []
    assert machine.unused() == [
        UnusedDevice(
            name="AMD [1002:74a1]",
            pci="0000:05:00.0",
            reason="there is no /dev/kfd: the kernel's amdgpu cannot compute, or a container hides it",
        )
    ]


def test_gaudi(machine: Machine) -> None:
    for index in (0, 1, 10):
        where = f"/sys/class/accel/accel{index}/device"
        machine.write(f"{where}/device_type", "GAUDI2")
        machine.write(f"{where}/pci_addr", f"0000:{33 + index:02X}:00.0")
        machine.write(f"{where}/module_id", 7 - index if index < 8 else 4)
        machine.write(f"/sys/class/accel/accel_controlD{index}/device/device_type", "GAUDI2")
        machine.write(f"/dev/accel/accel{index}")
        machine.card(f"0000:{33 + index:02x}:00.0", "1da3", "1020", driver="habanalabs")
    found = machine.facts()
    assert [(each.index, each.model, each.vendor, each.memory_bytes >> 30) for each in found] == [
        (0, "Gaudi2", "intel", 96),
        (1, "Gaudi2", "intel", 96),
        (10, "Gaudi2", "intel", 96),
    ]
    assert all(each.whole_only and each.utilisation_percent == -1 for each in found)
    assert devices.visible(machine.found(), [10, 1]) == {
        "HABANA_VISIBLE_DEVICES": "10,1",
        "HABANA_VISIBLE_MODULES": "4,6",
    }
    assert devices.visible(machine.found(), []) == {"HABANA_VISIBLE_DEVICES": "void"}
    assert machine.unused() == []


def test_tpu(machine: Machine) -> None:
    for chip in range(4):
        machine.card(f"0000:00:0{4 + chip}.0", "1ae0", "0063", driver="vfio-pci")
        machine.write(f"/dev/vfio/{chip}")
    machine.write("/dev/vfio/vfio")
    found = machine.facts()
    assert [(each.index, each.model, each.memory_bytes >> 30) for each in found] == [
        (chip, "tpu-v5litepod", 16) for chip in range(4)
    ]
    assert machine.unused() == []
    assert devices.visible(machine.found(), [0, 1, 2, 3]) == {}
    assert devices.visible(machine.found(), [2]) == {
        "TPU_VISIBLE_CHIPS": "2",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
    }
    assert devices.visible(machine.found(), [])["TPU_VISIBLE_CHIPS"] == ""


@pytest.mark.parametrize(("board", "model"), [("004e", "tpu-v2"), ("004f", "tpu-v3")])
def test_old_tpus_differ_by_their_board(machine: Machine, board: str, model: str) -> None:
    folder = machine.card("0000:00:04.0", "1ae0", "0027", driver="accel")
    machine.write(f"{folder}/subsystem_device", f"0x{board}")
    machine.write("/dev/accel0")
    assert [each.model for each in machine.facts()] == [model]


def test_neuron(machine: Machine) -> None:
    for index in range(2):
        where = f"/sys/devices/virtual/neuron_device/neuron{index}"
        machine.write(f"{where}/core_count", 2)
        for core in range(2):
            machine.write(f"{where}/neuron_core{core}/info/architecture/device_name", "Trainium1")
            machine.write(f"{where}/neuron_core{core}/stats/memory_usage/device_mem/present", GIB)
        machine.write(f"/dev/neuron{index}")
    found = machine.facts()
    assert [
        (each.index, each.model, each.memory_bytes >> 30, each.memory_used_bytes >> 30) for each in found
    ] == [(0, "Trainium", 32, 2), (1, "Trainium", 32, 2)]
    assert devices.visible(machine.found(), [1]) == {"NEURON_RT_VISIBLE_CORES": "2,3"}


def test_cores_that_are_joined_are_counted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [
        {"neuron_device": n, "bdf": f"{n}0:1e.0", "nc_count": 8, "instance_type": "trn2.48xlarge"}
        for n in (0, 1)
    ]
    found = neuron.parse_neuron_ls("a warning\n" + json.dumps(listed))
    assert [(each["model"], each["pci"]) for each in found] == [
        ("Trainium2", "0000:00:1e.0"),
        ("Trainium2", "0000:10:1e.0"),
    ]
    for each in found:
        each["_local"] = each["index"]
    monkeypatch.delenv("NEURON_LOGICAL_NC_CONFIG", raising=False)
    assert neuron.visible(found, [found[1]]) == {"NEURON_RT_VISIBLE_CORES": "4,5,6,7"}
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "1")
    assert neuron.visible(found, [found[1]])["NEURON_RT_VISIBLE_CORES"] == "8,9,10,11,12,13,14,15"
    assert neuron.parse_neuron_ls("no devices") == neuron.parse_neuron_ls('[{"x": 1}]') == []


def test_jetson(machine: Machine) -> None:
    machine.write("/proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    machine.write("/proc/meminfo", f"MemTotal: {61 << 20} kB\nMemFree: 1 kB\nMemAvailable: {50 << 20} kB")
    machine.write("/sys/devices/platform/gpu.0/load", 453)
    machine.write("/proc/driver/nvidia/version", "NVRM version")  # newer boards have NVIDIA's driver, too
    (board,) = machine.facts()
    assert board == Device(
        index=0, model="Jetson-AGX-Orin-64GB", vendor="nvidia", name="NVIDIA Jetson AGX Orin Developer Kit",
        memory_bytes=61 * GIB, memory_used_bytes=11 * GIB, utilisation_percent=45,
    )  # fmt: skip
    assert devices.visible(machine.found(), [0]) == {"CUDA_VISIBLE_DEVICES": "0"}


def test_other_boards_are_no_jetson(machine: Machine) -> None:
    machine.write("/proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    machine.write("/proc/meminfo", "MemTotal: 8000000 kB")
    assert machine.found() == []


def test_two_makers_on_one_machine(machine: Machine) -> None:
    """Indices stay apart, and each program sees only what it was given of both."""
    machine.instinct(1)
    machine.write("/sys/class/accel/accel0/device/device_type", "GAUDI")
    machine.write("/dev/accel/accel0")
    assert [(each.index, each.model) for each in machine.facts()] == [(0, "MI300X"), (600, "Gaudi")]
    assert devices.visible(machine.found(), [600]) == {
        "ROCR_VISIBLE_DEVICES": "",
        "HIP_VISIBLE_DEVICES": "-1",
        "HABANA_VISIBLE_DEVICES": "0",
    }


@pytest.mark.parametrize(
    ("vendor", "device", "kind", "driver", "name", "reason"),
    [
        ("10de", "2330", "0302", "", "NVIDIA [10de:2330]",
         "no driver (`nvidia`) is loaded for it; install its maker's and start the agent again"),
        ("10de", "2204", "0300", "nouveau", "NVIDIA [10de:2204]",
         "the driver nouveau does not compute; install NVIDIA's and start the agent again"),
        ("10de", "20b0", "0302", "vfio-pci", "NVIDIA [10de:20b0]",
         "it is set aside for virtual machines (driver vfio-pci)"),
        ("10de", "20b0", "0302", "nvidia", "NVIDIA [10de:20b0]",
         "its driver does not answer; `nvidia-smi` says why"),
        ("1e52", "401e", "1200", "tenstorrent", "Tenstorrent Wormhole [1e52:401e]",
         "driver tenstorrent; Argosy does not know how to give it to programs"),
        ("dead", "beef", "1200", "", "[dead:beef]",
         "no driver is loaded for it; install its maker's and start the agent again"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(
    machine: Machine, vendor: str, device: str, kind: str, driver: str, name: str, reason: str
) -> None:
    machine.write(
        "/usr/share/misc/pci.ids",
        "10ee  Xilinx\n\t401e  Wrong\n1e52  Tenstorrent\n\t401e  Wormhole\n1e53  X\n",
    )
    machine.card("0000:01:00.0", vendor, device, kind, driver)
    machine.card("0000:02:00.0", "1a03", "2000", "0300", "ast")  # a console's graphics
    machine.card("0000:03:00.0", "8086", "10fb", "0200", "ixgbe")  # a network card
    assert machine.unused() == [UnusedDevice(name=name, pci="0000:01:00.0", reason=reason)]


def test_parts_of_what_serves_one_program_at_a_time_are_refused(tmp_path: Path) -> None:
    node = Node(str(tmp_path), "n1")
    node._devices = [
        {"index": 0, "model": "Gaudi2", "vendor": "intel", "whole_only": True, "_maker": "gaudi", "_local": 0}
    ]
    order = {"id": "a.0", "run": "x", "shares": [{"index": 0, "milli": 500}]}
    with pytest.raises(CannotShare) as caught:
        Sharing(node).wish(checked_order(order))
    assert str(caught.value) == (
        "device 0 of n1 cannot be shared by turns: a Gaudi2 serves one program at a time; ask for whole ones"
    )
    wish = Sharing(node).wish(checked_order(order | {"shares": [{"index": 0, "milli": 1000}]}))
    assert wish.visible == {"HABANA_VISIBLE_DEVICES": "0"}
    assert node._sharing(node._devices) == []


@pytest.mark.parametrize("module", [amd, gaudi, jetson, neuron, pci, tpu], ids=lambda module: module.__name__)
def test_examples_in_the_documentation(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
