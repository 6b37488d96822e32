"""Which files of /dev a session gets: those of its own GPUs, as a real sandbox shows them. The cards are made
up: files with the names of theirs, in a /dev of the test's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argosy.agent import landlock, programs, sandbox
from argosy.agent.devices.nvidia import mig_index

GOOD, GAPS = sandbox.levels()
needs_sandbox = pytest.mark.skipif("sandbox" not in GOOD, reason=GAPS.get("sandbox", ""))

CARD_0: dict[str, Any] = {"vendor": "nvidia", "index": 0, "pci": "00000000:01:00.0"}
CARD_1: dict[str, Any] = {"vendor": "nvidia", "index": 1, "pci": "00000000:02:00.0"}
PART = {**CARD_1, "index": mig_index(1, 2), "mig_profile": "1g.10gb", "mig_parent": 1}
COMMON = {"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"}
#: The cards are numbered otherwise in /dev than NVML numbers them.
PROC = {
    "/proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: A100\nDevice Minor: \t 1\n",
    "/proc/driver/nvidia/gpus/0000:02:00.0/information": "Model: A100\nDevice Minor: \t 0\n",
    "/proc/driver/nvidia/capabilities/gpu0/mig/gi2/access": "DeviceFileMinor: 21\nDeviceFileMode: 444\n",
    "/proc/driver/nvidia/capabilities/gpu0/mig/gi2/ci0/access": "DeviceFileMinor: 22\n",
    "/proc/driver/nvidia/capabilities/gpu0/mig/gi3/access": "DeviceFileMinor: 30\n",
}
#: A /dev with all files of two cards in MIG mode beside what every /dev has, in a mount namespace of its own.
STAGE = """
mount -t tmpfs made-up "$1" && cd "$1" && mkdir pts shm
for one in null zero full random urandom tty; do : >$one; mount --bind /dev/$one $one; done
mkdir nvidia-caps dri
touch nvidia0 nvidia1 nvidiactl nvidia-uvm nvidia-uvm-tools nvidia-modeset kfd dri/renderD128
for one in 1 2 21 22 30 31; do : >nvidia-caps/nvidia-cap$one; done
mount --bind "$1" /dev
shift
exec "$@"
"""

FIND = "cd /dev && find . -name '*nvidia*' -o -name kfd"


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    """Files of accelerators that a sandbox with these devices has in its /dev."""
    real = sandbox.read_text
    monkeypatch.setattr(sandbox, "read_text", lambda path: PROC.get(path) or real(path))

    def look(*devices: dict[str, Any]) -> set[str]:
        for name in ("home", "sockets", "dev"):
            (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / "agent").touch()
        sandbox.write_names(str(tmp_path / "sockets"), "session")
        files = sandbox.device_files(list(devices))
        argv = sandbox.command(
            str(tmp_path / "agent"), str(tmp_path / "sockets"), str(tmp_path / "home"), "session", files, []
        )
        inner = [
            *argv[: argv.index("--") + 1],
            "/bin/sh",
            "-c",
            "cd /dev && find . -name '*nvidia*' -o -name kfd",
        ]
        apart = ["unshare", "--mount", "--propagation", "private"]
        if os.geteuid() != 0:
            apart += ["--user", "--map-root-user"]
        argv = [*apart, "sh", "-ec", STAGE, "sh", str(tmp_path / "dev"), *inner]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {line[2:] for line in done.stdout.split() if line != "./nvidia-caps"}

    return look


@needs_sandbox
@pytest.mark.parametrize(
    ("devices", "files"),
    [
        ((), set()),
        ((CARD_0,), COMMON | {"nvidia1"}),
        ((CARD_0, CARD_1), COMMON | {"nvidia0", "nvidia1"}),
        ((PART,), COMMON | {"nvidia0", "nvidia-caps/nvidia-cap21", "nvidia-caps/nvidia-cap22"}),
        (({"vendor": "amd", "index": 0},), {"kfd"}),
    ],
)
def test_a_sandbox_has_the_files_of_its_own_devices(
    shown: Callable[..., set[str]], devices: tuple[dict[str, Any], ...], files: set[str]
) -> None:
    """Whole cards by the numbers that the driver gave them; of a card in parts only that part. What shares
    a card has its file; how much it may use of it is told by MPS and the memory limit."""
    assert shown(*devices) == files


def test_landlock_is_what_is_left_where_namespaces_are_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sandbox` is refused there with the reason, and `sandbox-lite` can be had where the kernel has it."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(programs, "find", lambda name: str(fake) if name == "bwrap" else "")
    monkeypatch.setattr(
        sandbox, "read_text", lambda path: "1" if path.endswith("_restrict_unprivileged_userns") else ""
    )
    good, gaps = sandbox.levels()
    why = "user namespaces are forbidden here (kernel.apparmor_restrict_unprivileged_userns=1)"
    assert gaps["sandbox"] == gaps["user"] == why
    assert good == (["process", "sandbox-lite"] if landlock.abi() else ["process"])
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    good, gaps = sandbox.levels()
    assert good == ["process"] and gaps["sandbox-lite"].startswith("this kernel has no Landlock")
