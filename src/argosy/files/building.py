"""The program in C: how it is compiled, and where it lies.

With the compiler of the package `ziglang` it is static, for both architectures; with the machine's own
compiler it is for this machine only. Nothing compiles by itself: the wheel's build does, and `argosy files
build`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ARCHITECTURES = ("x86_64", "aarch64")
LIMIT_BYTES = 64_000  # of each program that `ziglang` compiles: it travels to nodes
_SMALL = (
    "-Oz",
    "-s",
    "-static",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wl,--gc-sections",
    "-Wl,-z,norelro",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fno-sanitize=all",
)
_MORE = {"aarch64": ("-moutline", "-flto")}
_PLAIN = ("-O2", "-s", "-pthread")


def source_files() -> list[Path]:
    """What the program is made of."""
    folder = Path(__file__).parent / "native"
    return sorted(path for path in folder.iterdir() if path.suffix in (".c", ".h"))


def source_digest() -> str:
    """Of the sources: a program in the cache that was made from others is not used."""
    parts = hashlib.sha256()
    for path in source_files():
        parts.update(path.name.encode() + b"\0" + path.read_bytes())
    return parts.hexdigest()[:16]


def this_architecture() -> str:
    """As in the program's name; of a machine with other names for the two that are built, theirs."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def program_name(architecture: str) -> str:
    return f"pf-{architecture}"


def shipped_programs() -> dict[str, Path]:
    """The programs that came with the package, by name."""
    folder = Path(__file__).parent / "programs"
    return {path.name: path for path in sorted(folder.glob("pf-*"))}


def compilers(python: str = sys.executable) -> dict[str, list[str]]:
    """The command that compiles for each architecture that can be compiled for here; {}: there is no
    compiler. `python`: the interpreter that may have `ziglang`."""
    if importlib.util.find_spec("ziglang") is not None:
        return {
            each: [
                python,
                "-m",
                "ziglang",
                "cc",
                "-target",
                f"{each}-linux-musl",
                *_SMALL,
                *_MORE.get(each, ()),
            ]
            for each in ARCHITECTURES
        }
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found:
            return {this_architecture(): [found, *_PLAIN]}
    return {}


def build_programs(folder: Path, *, timeout_s: float = 900) -> list[Path]:
    """Compile for every architecture that can be compiled for. Returns the programs; [] where there is no
    compiler or it cannot (its message goes to standard error). Raises OSError."""
    if sys.platform != "linux":
        return []
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for architecture, command in compilers().items():
        path = folder / program_name(architecture)
        if compile_program(command, path, timeout_s=timeout_s):
            made.append(path)
    return made


def compile_program(command: list[str], path: Path, *, timeout_s: float = 900) -> bool:
    """One program, written beside its place and renamed. Raises OSError."""
    sources = [str(each) for each in source_files() if each.suffix == ".c"]
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".pf-")
    os.close(handle)
    try:
        done = subprocess.run([*command, "-o", temporary, *sources], check=False, timeout=timeout_s)
        if done.returncode:
            return False
        if "-static" in command:
            Path(temporary).write_bytes(without_sections(Path(temporary).read_bytes()))
        Path(temporary).chmod(0o755)
        Path(temporary).replace(path)
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        Path(temporary).unlink(missing_ok=True)


def without_sections(program: bytes) -> bytes:
    """An ELF program of 64 bits without what only linkers and debuggers read: the table of sections, and what
    lies behind the last part that is loaded."""
    first, count = struct.unpack_from("<Q", program, 32)[0], struct.unpack_from("<H", program, 56)[0]
    ends = [
        sum(struct.unpack_from("<Q", program, first + number * 56 + at)[0] for at in (8, 32))
        for number in range(count)
    ]
    head = bytearray(program[:64])
    struct.pack_into("<Q", head, 40, 0)  # where the table is
    struct.pack_into("<HHH", head, 58, 0, 0, 0)
    return bytes(head) + program[64 : max(ends)]
