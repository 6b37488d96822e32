from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_process import AgentProcess

import argosy
from argosy.agent.devices import nvidia as devices
from argosy.infra.agent_client import AgentClient

Probe = Callable[..., dict[str, object]]

ASK_PYNVML = """
import json, pynvml as n
n.nvmlInit()
found = []
for index in range(n.nvmlDeviceGetCount()):
    h = n.nvmlDeviceGetHandleByIndex(index)
    memory = n.nvmlDeviceGetMemoryInfo(h)
    try:
        load = n.nvmlDeviceGetUtilizationRates(h).gpu
    except n.NVMLError:
        load = -1
    found.append(dict(index=index, name=n.nvmlDeviceGetName(h), uuid=n.nvmlDeviceGetUUID(h),
        memory_bytes=memory.total, memory_used_bytes=memory.used, pci=n.nvmlDeviceGetPciInfo(h).busId,
        utilisation_percent=load))
print(json.dumps(found))
"""


def test_the_same_as_nvidias_own_library_says(nvml: str, probe: Probe) -> None:
    pytest.importorskip("pynvml")
    environ = {**os.environ, "LD_LIBRARY_PATH": str(Path(nvml).parent)}
    theirs = json.loads(
        subprocess.run(
            [sys.executable, "-c", ASK_PYNVML], env=environ, check=True, capture_output=True
        ).stdout
    )
    ours = probe(ARGOSY_NVML_LIBRARY=nvml)["devices"]
    assert isinstance(ours, list)
    assert len(ours) == 8
    assert [{key: device[key] for key in theirs[0]} for device in ours] == theirs
    assert [device["numa"] for device in ours] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {device["model"] for device in ours} == {"H100"}
    assert all("nvlinks" not in device for device in ours)


def test_nvlinks_through_a_switch_and_between_pairs(nvml: str, probe: Probe) -> None:
    switched = probe(ARGOSY_NVML_LIBRARY=nvml, STUB_LINKS="switch")["devices"]
    assert isinstance(switched, list)
    assert switched[2]["nvlinks"] == [18, 18, 0, 18, 18, 18, 18, 18]
    paired = probe(ARGOSY_NVML_LIBRARY=nvml, STUB_LINKS="pairs")["devices"]
    assert isinstance(paired, list)
    assert paired[2]["nvlinks"] == [0, 0, 0, 4, 0, 0, 0, 0]


def test_a_node_is_told_only_its_own_devices_by_their_real_index(nvml: str, probe: Probe) -> None:
    own = probe("--devices", "1,6", ARGOSY_NVML_LIBRARY=nvml, STUB_LINKS="switch")["devices"]
    assert isinstance(own, list)
    assert [device["index"] for device in own] == [1, 6]
    assert len(own[0]["nvlinks"]) == 8
    assert probe("--devices=", ARGOSY_NVML_LIBRARY=nvml)["devices"] == []


def test_broken_drivers_cost_devices_and_nothing_else(nvml: str, probe: Probe, tmp_path: Path) -> None:
    lost = probe(ARGOSY_NVML_LIBRARY=nvml, STUB_LOST="3")["devices"]
    assert isinstance(lost, list)
    assert [device["index"] for device in lost] == [0, 1, 2, 4, 5, 6, 7]
    assert probe(ARGOSY_NVML_LIBRARY=nvml, STUB_COUNT="-1")["devices"] == []
    assert probe(ARGOSY_NVML_LIBRARY=nvml, STUB_COUNT="0")["devices"] == []
    assert probe(ARGOSY_NVML_LIBRARY="/nowhere/libnvidia-ml.so.1")["devices"] == []
    (tmp_path / "text.so").write_text("not a library")
    assert probe(ARGOSY_NVML_LIBRARY=str(tmp_path / "text.so"))["devices"] == []
    assert probe(ARGOSY_NVML_LIBRARY="libc.so.6")["devices"] == []


def test_programs_see_the_devices_that_they_were_given(
    make_agent: Callable[..., AgentProcess], nvml: str
) -> None:
    agent = make_agent()
    agent.environ["ARGOSY_NVML_LIBRARY"] = nvml
    agent.devices = [4, 5]
    agent.start()

    async def scenario(client: AgentClient) -> None:
        facts = await client.node()
        assert [(device.index, device.numa, device.model) for device in facts.devices] == [
            (4, 1, "H100"),
            (5, 1, "H100"),
        ]
        assert facts.devices[0].utilisation_percent == 40

    agent.use(scenario)
    show = 'echo "[${CUDA_VISIBLE_DEVICES-unset}] $CUDA_DEVICE_ORDER"'
    prefix = "GPU-00000000-aaaa-bbbb-cccc-00000000000"
    assert agent.run_one(show, devices=(5, 4))[1].decode() == f"[{prefix}5,{prefix}4] PCI_BUS_ID\n"
    assert agent.run_one(show)[1] == b"[] PCI_BUS_ID\n"
    assert agent.run_one(show, env={"CUDA_VISIBLE_DEVICES": "mine"})[1] == b"[mine] PCI_BUS_ID\n"


def test_nvidia_smi_where_there_is_no_nvml(probe: Probe, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "echo '0, NVIDIA A100-SXM4-80GB, GPU-1, 81920, 1024, 00000000:07:00.0, 35'\n"
        "echo '1, Tesla T4, GPU-2, 15360, [N/A], 00000000:08:00.0, [N/A]'\n"
        "echo 'a warning'\n"
    )
    program.chmod(0o755)
    found = probe(PATH=f"{tmp_path}:{os.environ['PATH']}")["devices"]
    assert isinstance(found, list)
    assert [(d["model"], d["memory_used_bytes"], d["utilisation_percent"]) for d in found] == [
        ("A100-80GB", 1 << 30, 35),
        ("T4", 0, -1),
    ]


@pytest.mark.parametrize(
    ("name", "memory_gib", "model"),
    [
        ("NVIDIA A100-SXM4-40GB", 40, "A100"),
        ("NVIDIA A100-PCIE-40GB", 40, "A100"),
        ("NVIDIA A100 80GB PCIe", 80, "A100-80GB"),
        ("NVIDIA H100 PCIe", 80, "H100"),
        ("NVIDIA H100 80GB HBM3", 80, "H100"),
        ("NVIDIA H100 NVL", 94, "H100-NVL"),
        ("NVIDIA H200", 141, "H200"),
        ("NVIDIA GH200 480GB", 96, "GH200"),
        ("NVIDIA B200", 180, "B200"),
        ("NVIDIA GB200", 186, "GB200"),
        ("NVIDIA L4", 24, "L4"),
        ("NVIDIA L40S", 48, "L40S"),
        ("Tesla T4", 16, "T4"),
        ("Tesla V100-SXM2-16GB", 16, "V100"),
        ("Tesla V100-SXM2-32GB", 32, "V100-32GB"),
        ("Tesla P100-PCIE-16GB", 16, "P100"),
        ("Tesla K80", 12, "K80"),
        ("NVIDIA A10G", 24, "A10G"),
        ("NVIDIA A10", 24, "A10"),
        ("NVIDIA GeForce RTX 4090", 24, "RTX4090"),
        ("NVIDIA GeForce RTX 3080 Ti", 12, "RTX3080Ti"),
        ("NVIDIA RTX A6000", 48, "RTXA6000"),
        ("NVIDIA RTX 6000 Ada Generation", 48, "RTX6000-Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 96, "RTXPRO6000"),
        ("Quadro RTX 6000", 24, "RTX6000"),
        ("Some Thing", 1, "Some-Thing"),
        ("", 0, "GPU"),
    ],
)
def test_names(name: str, memory_gib: int, model: str) -> None:
    assert devices.catalog_name(name, memory_gib << 30) == model


def test_examples_in_the_documentation() -> None:
    assert doctest.testmod(devices).failed == 0


def test_whose_programs_compute(nvml: str, tmp_path: Path) -> None:
    table = tmp_path / "work"
    table.write_text("0 11 40 100\n0 12 0 120\n3 13 1 90\n")
    code = "from argosy.agent.devices import at_work; print(at_work(0), at_work(100), at_work(120))"
    source = str(Path(argosy.__file__).parents[1])

    def said(**env: str) -> str:
        env = {"ARGOSY_NVML_LIBRARY": nvml, "PYTHONPATH": source, **env}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert said(STUB_WORK=str(table)) == "(120, {11, 13}) (120, set()) (120, set())"
    assert said() == "None None None"
    assert said(ARGOSY_NVML_LIBRARY="/nowhere") == "None None None"
