"""Amounts as other systems write them, and how they are written here. ValueError is a sentence for the
user."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from argosy.model.units import GIB, MIB
from argosy.spec.accelerators import canonical_accelerator, parse_accelerator
from argosy.spec.findings import excerpt
from argosy.spec.notation import render_size
from argosy.spec.notation import render_span as seconds_text

_BINARY: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
#: What a file says that wants GPUs without saying which: any of that maker.
ANY_NVIDIA: Final = "nvidia:1GB+"
ANY_AMD: Final = "amd:1GB+"
_MAX_BYTES: Final = 1 << 59
_MIG: Final = re.compile(r"(?:mig-)?[0-9]g\.([0-9]{1,3})gb(?:\.[a-z0-9.]+)?", re.IGNORECASE)


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity as a number: `500m`, `16Gi`, `1e3`, `64G`.

    >>> quantity("500m"), quantity("2Ki")
    (Decimal('0.5'), Decimal('2048'))
    """
    match = re.fullmatch(
        r"([0-9]{1,18}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(m|[kMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?", text.strip()
    )
    if match is None:
        raise ValueError(f"`{excerpt(text)}` is no quantity; write for example `500m`, `4` or `16Gi`")
    number, unit = Decimal(match[1]), match[2] or ""
    if unit == "m":
        return number / 1000
    if unit[:1] in ("e", "E") and unit[1:].isdigit():
        return number * Decimal(10 ** int(unit[1:]))
    power = _BINARY[unit[:1].lower()]
    scale: int = (1024 if unit.endswith("i") else 1000) ** power
    return number * scale


def bytes_text(amount: int | Decimal) -> str:
    """A size in the notation of a task, rounded up to whole MB.

    >>> bytes_text(16 << 30), bytes_text(1)
    ('16GB', '1MB')
    """
    whole = int(amount)
    if not 0 < whole < _MAX_BYTES:
        raise ValueError("that is more than exists" if whole > 0 else "that is nothing")
    return render_size(-(-whole // MIB) * MIB)


def memory_text(amount: int | Decimal, *, exact: bool = False) -> str:
    """`16+` (GB) or `512MB+`.

    >>> memory_text(16 << 30)
    '16+'
    """
    text = bytes_text(amount)
    if text.endswith("GB"):
        text = text.removesuffix("GB")
    elif text.endswith("TB"):
        text = str(int(text.removesuffix("TB")) * 1024)
    return text if exact else text + "+"


def cpus_text(amount: Decimal | int, *, exact: bool = False) -> str:
    """
    >>> cpus_text(Decimal("0.50")), cpus_text(4, exact=True)
    ('0.5+', '4')
    """
    number = Decimal(amount)
    if not 0 < number <= 10_000:
        raise ValueError("that number of CPUs does not exist")
    number = max(number.quantize(Decimal("0.001")), Decimal("0.001"))
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text if exact else text + "+"


def unit_bytes(text: str, *, unit: str = "g") -> int:
    """Bytes of `16G`, `512MB`, `1.5TiB`, `100`; a bare number is in `unit`. Units are powers of 1024.

    >>> unit_bytes("4000M") == 4000 << 20, unit_bytes("2") == 2 << 30
    (True, True)
    """
    match = re.fullmatch(
        r"([0-9]{1,15}(?:\.[0-9]{0,6})?|\.[0-9]{1,6})\s*([kmgtp]?)i?b?", text.strip().lower()
    )
    if match is None:
        raise ValueError(f"`{excerpt(text)}` is not a size; write for example `16G`")
    letter = match[2] or ("" if text.strip().lower().endswith("b") else unit)
    return int(Decimal(match[1]) * 1024 ** _BINARY[letter])


def duration_s(text: str) -> int:
    """Seconds of `90s`, `5m`, `2h`, `1d`, `1w` or a bare number of seconds, also in a row: `1h30m`."""
    body = text.strip().lower()
    if re.fullmatch(r"[0-9]{1,9}", body):
        return int(body)
    parts = re.findall(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([smhdw])", body)
    if not parts or re.sub(r"[0-9.]+\s*[smhdw]|\s", "", body):
        raise ValueError(f"`{excerpt(text)}` is no duration; write for example `30s`, `5m` or `2h`")
    unit_s = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    return int(sum(Decimal(number) * unit_s[unit] for number, unit in parts))


def slurm_seconds(text: str) -> int:
    """Seconds of `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours[:minutes[:seconds]]`.

    >>> slurm_seconds("90"), slurm_seconds("2-12"), slurm_seconds("01:30:00")
    (5400, 216000, 5400)
    """
    match = re.fullmatch(r"(?:([0-9]{1,4})-)?([0-9]{1,6})(?::([0-9]{1,6}))?(?::([0-9]{1,6}))?", text.strip())
    if match is None:
        raise ValueError(
            f"`{excerpt(text)}` is no time of Slurm; write for example `90`, `12:00:00` or `2-00:00:00`"
        )
    days, first, second, third = (int(group) if group else 0 for group in match.groups())
    if match[1] is not None:
        return days * 86400 + first * 3600 + second * 60 + third
    if match[4] is not None:
        return first * 3600 + second * 60 + third
    return first * 60 + second


#: Names of families that clusters use as the type of a GPU: any of the vendor is meant.
FAMILIES: Final = frozenset({"tesla", "nvidia", "gpu", "geforce", "quadro", "rtx", "gtx", "cuda"})


def accelerator_name(text: str) -> str | None:
    """The name of a GPU from the labels and types that schedulers use; None when it is not known.

    >>> accelerator_name("NVIDIA-A100-SXM4-80GB"), accelerator_name("nvidia-tesla-t4"), accelerator_name("gpu")
    ('A100-80GB', 'T4', None)
    """  # noqa: E501
    name = re.sub(r"^(?:nvidia|amd)[._/\-]", "", text.strip(), flags=re.IGNORECASE)
    for candidate in (
        text,
        name,
        re.sub(r"(?i)-(?:sxm[0-9]?|pcie|hbm[0-9]e?|mega|nvl)(?=-|$)", "", name),
        re.sub(r"(?i)-(?:sxm[0-9]?|pcie|hbm[0-9]e?|mega|nvl|shared|mig.*)", "", name),
        re.sub(r"-([0-9]{2,3})$", r"-\1GB", name),
        re.sub(r"(?i)[_\-]?[0-9]+gb?$", "", re.sub(r"(?i)-(?:sxm[0-9]?|pcie|mega)", "", name)),
    ):
        known = canonical_accelerator(candidate) if candidate and not candidate.isdigit() else None
        if known:
            return known
    return None


def mig_memory(text: str) -> str | None:
    """A slice of a GPU such as `3g.40gb` as any GPU with that memory.

    >>> mig_memory("3g.40gb"), mig_memory("h100-47"), mig_memory("a100-80")
    ('40GB+', '47GB+', None)
    """
    part = re.fullmatch(r"([A-Za-z]+[0-9]+[A-Za-z]*)-([0-9]{2,3})", text.strip())  # as some sites call slices
    if part and canonical_accelerator(part[1]) and not canonical_accelerator(f"{part[1]}-{part[2]}GB"):
        return f"{int(part[2])}GB+"
    match = _MIG.fullmatch(text.strip())
    return f"{int(match[1])}GB+" if match and int(match[1]) else None


def accelerator(text: str, count: int) -> str | None:
    """`NAME:COUNT` as a task has it, for a name that need not be known. None when it cannot be a name."""
    name = mig_memory(text) or accelerator_name(text)
    if name is None and re.fullmatch(r"[A-Za-z][A-Za-z0-9_\-]{0,40}", text):
        name = text
    if name is None:
        return None
    try:
        return parse_accelerator(f"{name}:{count}").render() if not name.endswith("+") else f"{name}:{count}"
    except ValueError:
        return None


__all__ = [
    "ANY_AMD",
    "ANY_NVIDIA",
    "FAMILIES",
    "GIB",
    "MIB",
    "accelerator",
    "accelerator_name",
    "bytes_text",
    "cpus_text",
    "duration_s",
    "memory_text",
    "mig_memory",
    "quantity",
    "seconds_text",
    "slurm_seconds",
    "unit_bytes",
]
