"""How accelerators are written: `A100:8`, `A100:0.25`, `80GB+`, and in which spellings they are known."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from argosy.model.errors import near
from argosy.model.resources import Accelerator
from argosy.model.units import parse_milli, parse_size, render_milli
from argosy.spec.findings import excerpt
from argosy.spec.notation import render_size

# Names as SkyPilot's catalog spells them. The catalog of offers is the authority on what exists; this list
# only corrects spelling before anything is asked.
_NAMES: Final = """
    A10 A10G A30 A40 A16 A2 A100 A100-80GB A100-80GB-SXM A800 A800-80GB L4 L40 L40S L20 L2 T4 T4g
    K80 M4000 M40 M60 P4 P40 P100 P4000 P5000 P6000 V100 V100-32GB
    H20 H100 H100-SXM H100-PCIe H100-NVL H100-NVLINK H100-MEGA H200 H200-SXM H200-NVL H800
    GH200 B100 B200 B300 GB10 GB200 GB300
    GTX1060 GTX1070 GTX1080 GTX1080-Ti GTX1660
    RTX2060 RTX2070 RTX2080 RTX2080-Ti RTX3050 RTX3060 RTX3060-Ti RTX3070 RTX3070-Ti RTX3080 RTX3080-Ti
    RTX3090 RTX3090-Ti RTX4050 RTX4060 RTX4060-Ti RTX4070 RTX4070-Ti RTX4080 RTX4080-SUPER RTX4090
    RTX5050 RTX5060 RTX5060-Ti RTX5070 RTX5070-Ti RTX5080 RTX5090 RTX4000 RTX5000 RTX6000 RTX8000
    RTX2000-Ada RTX4000-Ada RTX4500-Ada RTX5000-Ada RTX5880-Ada RTX6000-Ada
    RTXA2000 RTXA4000 RTXA4500 RTXA5000 RTXA5500 RTXA6000 RTXPRO4500 RTXPRO5000 RTXPRO6000
    TITAN-V TITAN-RTX TITAN-Xp
    MI25 MI50 MI100 MI210 MI250 MI250X MI300A MI300X MI308X MI325X MI350X MI355X V520 V620 V710
    Gaudi Gaudi2 Gaudi3 Inferentia Inferentia2 Trainium Trainium2 Trainium3
    Jetson Jetson-Orin Jetson-AGX-Orin-32GB Jetson-AGX-Orin-64GB Jetson-Orin-NX-8GB Jetson-Orin-NX-16GB
    Jetson-Orin-Nano-4GB Jetson-Orin-Nano-8GB Jetson-AGX-Thor
    tpu-v2 tpu-v3 tpu-v4 tpu-v5litepod tpu-v5p tpu-v6e tpu-v7
"""
KNOWN: Final = tuple(_NAMES.split())

_OTHER_SPELLINGS: Final = {
    "a10040gb": "A100",
    "a100sxm440gb": "A100",
    "a10080g": "A100-80GB",
    "a10080gbpcie": "A100-80GB",
    "a100sxm480gb": "A100-80GB",
    "v10016gb": "V100",
    "v10032g": "V100-32GB",
    "h10080gb": "H100",
    "h100sxm5": "H100-SXM",
    "h100sxm580gb": "H100-SXM",
    "h200141gb": "H200",
    "a4000": "RTXA4000",
    "a4500": "RTXA4500",
    "a5000": "RTXA5000",
    "a6000": "RTXA6000",
    "4090": "RTX4090",
    "3090": "RTX3090",
    "5090": "RTX5090",
    "tpuv5e": "tpu-v5litepod",
    "habanagaudi": "Gaudi",
}
_TPU: Final = re.compile(r"tpu-?(v2|v3|v4|v5litepod|v5e|v5p|v6e|v7x?)(?:-?(\d+))?", re.IGNORECASE)
_VENDORS: Final = ("nvidia", "amd", "intel", "google", "aws")
_MEMORY: Final = re.compile(r"[0-9]*\.?[0-9]+\s*(?:[gmt]i?b?)\+?|[0-9]*\.?[0-9]+\+", re.IGNORECASE)


class Alternatives(NamedTuple):
    """What `accelerators` may hold: one wish, several in order of preference, or any of several."""

    wishes: tuple[Accelerator, ...]
    ordered: bool = False


def _fold(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).lower()


_BY_FOLD: Final = {_fold(name): name for name in KNOWN} | _OTHER_SPELLINGS


def canonical_accelerator(name: str) -> str | None:
    """The name as the catalog spells it, or None when it is not known here.

    >>> canonical_accelerator("a100-80gb"), canonical_accelerator("NVIDIA H100"), canonical_accelerator("tpu-V5E-8")
    ('A100-80GB', 'H100', 'tpu-v5litepod-8')
    """  # noqa: E501
    if len(name) > 100:
        return None
    tpu = _TPU.fullmatch(name.strip())
    if tpu:
        version = {"v5e": "v5litepod", "v7x": "v7"}.get(tpu[1].lower(), tpu[1].lower())
        return f"tpu-{version}-{tpu[2]}" if tpu[2] else f"tpu-{version}"
    fold = _fold(name)
    if fold in _BY_FOLD:
        return _BY_FOLD[fold]
    for prefix in ("nvidia", "amd", "intel", "tesla", "geforce", "quadro", "radeon", "instinct"):
        if fold.startswith(prefix) and len(fold) > len(prefix):
            return canonical_accelerator(fold.removeprefix(prefix))
    return None


def parse_accelerator(text: str) -> Accelerator:
    """One wish: `NAME[:COUNT]`, or memory per device `80GB+[:COUNT]`, or `VENDOR:80GB+[:COUNT]`.

    A name that is not known is kept as it is written. Raises ValueError.

    >>> parse_accelerator("a100:0.25").render()
    'A100:0.25'
    """
    parts = [part.strip() for part in text.strip().split(":")]
    vendor = None
    if parts[0].lower() in _VENDORS and len(parts) > 1:
        vendor = parts.pop(0).lower()
    if not parts[0] or len(parts) > 2:
        raise ValueError(
            f"`{excerpt(text)}` is no accelerator; write for example `A100`, `A100:8`, `A100:0.5` or `80GB+`"
        )
    milli = parse_count(parts[1]) if len(parts) == 2 else 1000
    if _MEMORY.fullmatch(parts[0]):
        return Accelerator(
            model=None, milli=milli, memory_min_bytes=parse_size(parts[0].rstrip("+")), vendor=vendor
        )
    return Accelerator(model=parse_accelerator_name(parts[0]), milli=milli, vendor=vendor)


def parse_accelerator_name(name: str) -> str:
    """The canonical name; an unknown one is kept: the catalog knows better. Raises ValueError."""
    known = canonical_accelerator(name)
    if known:
        return known
    if name.isdigit():
        raise ValueError(f"`{name}` names no accelerator; write for example `A100:{name}`")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._\-]{0,62}", name):
        raise ValueError(f"`{excerpt(name)}` is no name of an accelerator; write for example `A100` or `L4`")
    return name


def misspelt(name: str) -> str:
    """The known accelerator that an unknown name is near to; "" when it is known, or near to none.

    >>> misspelt("AA100"), misspelt("A100"), misspelt("OurOwnChip")
    ('A100', '', '')
    """
    return "" if canonical_accelerator(name) else near(name, KNOWN, cutoff=0.75) or ""


def parse_count(text: str) -> int:
    """Thousandths of devices: whole devices, or a part of one. Raises ValueError."""
    if not re.fullmatch(r"[0-9]+|[0-9]*\.[0-9]+|[0-9]+\.", text.strip()):
        raise ValueError(f"`{excerpt(text)}` is no number of accelerators; write for example `8` or `0.5`")
    milli = parse_milli(text.strip())
    if milli > 1000 and milli % 1000:
        raise ValueError(
            f"`{excerpt(text)}` accelerators cannot be had: take whole ones, or a part of one such as `0.5`"
        )
    if milli > 1_000_000_000:
        raise ValueError(f"`{excerpt(text)}` accelerators are more than exist")
    return milli


def render_accelerator(wish: Accelerator) -> str:
    """As it is written in YAML; `parse_accelerator` reads it back."""
    name = wish.model or f"{render_size(wish.memory_min_bytes)}+"
    return (f"{wish.vendor}:" if wish.vendor else "") + f"{name}:{render_milli(wish.milli)}"
