"""Both programs in C as a release ships them: small, static, and for the machine that their name says."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest

from argosy.files.building import LIMIT_BYTES, build_programs

#: The machine that the head of a program names (ELF).
MACHINES = {"pf-x86_64": 62, "pf-aarch64": 183}
_LINKS = 3  # a part of the program that names the linker at run time: what is static has none


@pytest.mark.nightly
def test_both_programs_are_static_and_within_the_limit(tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed: the sizes of the programs are not held (pip install ziglang)")
    made = build_programs(tmp_path)
    assert {path.name for path in made} == MACHINES.keys()
    for path in made:
        data = path.read_bytes()
        assert len(data) <= LIMIT_BYTES, f"{path.name} has {len(data):,} bytes"
        assert data[:5] == b"\x7fELF\x02"
        assert struct.unpack_from("<H", data, 18)[0] == MACHINES[path.name]
        at, size, count = (
            struct.unpack_from(form, data, where)[0] for form, where in (("<Q", 32), ("<H", 54), ("<H", 56))
        )
        parts = {struct.unpack_from("<I", data, at + number * size)[0] for number in range(count)}
        assert _LINKS not in parts, f"{path.name} is not static"
