"""A virtual machine with a kernel of its own, for file systems that this machine's kernel lacks.

Its root is this Python with our package, in memory; its processor is emulated, so that no hardware is
needed. A program runs in it as its first process, with files of ours as its disks.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import argosy

PACKAGE: Final = "linux-image-cloud-amd64"
_FIRST: Final = """\
#!{python}
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, options=""):
    os.makedirs(target, exist_ok=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode() or None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)
try:
    for name, kind in (("proc", "proc"), ("sys", "sysfs"), ("dev", "devtmpfs")):
        mount(name, "/" + name, kind)
    for name in {modules!r}:
        fd = os.open("/modules/" + name, os.O_RDONLY)
        libc.syscall(313, fd, b"", 0)  # finit_module
        os.close(fd)
    os.environ["PATH"] = "/usr/bin:/bin:/usr/sbin:/sbin"
    os.environ["ARGOSY_FILES_PROGRAM"] = "none"
    os.environ["PYTHONPATH"] = "/argosy"
    sys.path[:0], sys.executable = ["/argosy"], "{python}"
    exec(compile(open("/program.py").read(), "/program.py", "exec"))
    print("MACHINE DONE", flush=True)
except BaseException:
    import traceback
    print(traceback.format_exc(), flush=True)
os.sync()
libc.reboot(0x4321FEDC)  # power off
"""


def why_not() -> str:
    """What is missing here; "": nothing."""
    missing = [name for name in ("qemu-system-x86_64", "dpkg", "apt-get") if shutil.which(name) is None]
    if os.uname().machine != "x86_64":
        return "the machine's kernel is for x86-64"
    return f"no {', '.join(missing)} here (apt-get install qemu-system-x86 seabios)" if missing else ""


def kernel(folder: Path) -> tuple[Path, Path] | None:
    """Debian's kernel for clouds, unpacked, and its modules; None: it cannot be fetched."""
    told = subprocess.run(["apt-cache", "depends", PACKAGE], capture_output=True, text=True, check=False)
    found = re.search(r"Depends: (linux-image-\S+)", told.stdout)
    if found is None:
        return None
    subprocess.run(["apt-get", "download", "-q", found[1]], cwd=folder, capture_output=True, check=False)
    packages = list(folder.glob("linux-image-*.deb"))
    if not packages:
        return None
    subprocess.run(["dpkg", "-x", packages[0], folder / "kernel"], check=True)
    version = found[1].removeprefix("linux-image-")
    return folder / "kernel/boot" / f"vmlinuz-{version}", folder / "kernel/lib/modules" / version


def run(
    folder: Path, modules: Sequence[str], program: str, disks: Sequence[Path], tools: Sequence[str]
) -> str:
    """What the program printed. `modules`: drivers by name, with all that they need; `disks`: they are
    /dev/vda, /dev/vdb and so on. Raises OSError when there is no kernel to be had."""
    found = kernel(folder)
    if found is None:
        raise OSError(f"{PACKAGE} cannot be fetched")
    image, drivers = found
    archive = folder / "root.cpio"
    needed = _with_needs(drivers, modules)
    with archive.open("wb") as out:
        for number, (name, mode, data) in enumerate(_entries(drivers, needed, program, tools)):
            out.write(_record(number + 1, name, mode, data))
        out.write(_record(0, "TRAILER!!!", 0, b""))
    drives = [word for disk in disks for word in ("-drive", f"file={disk},format=raw,if=virtio")]
    done = subprocess.run(
        [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", "1500"),
            *("-display", "none", "-no-reboot", "-serial", "stdio", "-monitor", "none", "-nic", "none"),
            *("-kernel", str(image), "-initrd", str(archive), *drives),
            *("-append", "console=ttyS0 quiet panic=-1 rdinit=/init"),
        ],
        capture_output=True,
        timeout=540,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def _with_needs(drivers: Path, wanted: Sequence[str]) -> list[Path]:
    """In the order in which they are loaded; what is built into the kernel is no file."""
    files = {path.name.removesuffix(".ko").replace("-", "_"): path for path in drivers.rglob("*.ko")}
    order: dict[Path, None] = {}

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        found = re.search(rb"depends=([^\0]*)\0", path.read_bytes())
        for each in (found[1].decode() if found is not None else "").split(","):
            add(each)
        order[path] = None

    for name in wanted:
        add(name)
    return list(order)


def _entries(
    drivers: Path, modules: Sequence[Path], program: str, tools: Sequence[str]
) -> Iterator[tuple[str, int, bytes]]:
    """The files of its root: names, modes, bytes."""
    python = os.path.realpath(sys.executable)
    library = Path(sysconfig.get_path("stdlib"))
    first = _FIRST.format(python=python, modules=[path.name for path in modules])
    files: dict[str, Path] = {f"modules/{path.name}": path for path in modules}
    for path in (python, *(found for found in map(shutil.which, tools) if found)):
        files[path.lstrip("/")] = Path(path)
        for needed in _libraries(path):
            files[needed.lstrip("/")] = Path(needed)
    for path in library.rglob("*"):
        parts = path.relative_to(library).parts
        if path.is_file() and not {"test", "site-packages", "__pycache__", "idlelib", "lib2to3"} & set(parts):
            files[str(path).lstrip("/")] = path
            if path.suffix == ".so":
                files |= {needed.lstrip("/"): Path(needed) for needed in _libraries(str(path))}
    package = Path(argosy.__file__).parent
    own = [each for each in package.rglob("*.py") if each.relative_to(package).parts[0] in _OWN]
    for path in (package / "__init__.py", *own):
        files[f"argosy/argosy/{path.relative_to(package)}"] = path
    import msgspec

    for path in Path(msgspec.__file__).parent.glob("*"):
        if path.suffix in (".py", ".so"):
            files[f"argosy/msgspec/{path.name}"] = path
            files |= {needed.lstrip("/"): Path(needed) for needed in _libraries(str(path))}
    made: set[str] = set()
    for name in files:
        for above in reversed([str(each) for each in Path(name).parents][:-1]):
            if above not in made:
                made.add(above)
                yield above, stat.S_IFDIR | 0o755, b""
    yield "init", stat.S_IFREG | 0o755, first.encode()
    yield "program.py", stat.S_IFREG | 0o644, program.encode()
    for name, path in files.items():
        yield name, stat.S_IFREG | 0o755, path.read_bytes()


_OWN: Final = ("model", "storage", "files", "infra", "agent")


def _libraries(path: str) -> list[str]:
    told = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", told)


def _record(number: int, name: str, mode: int, data: bytes) -> bytes:
    """One file in the format that a kernel unpacks (cpio, "newc")."""
    label = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(label), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + label
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
