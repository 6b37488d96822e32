"""Amounts are integers in the smallest unit: milli-CPU, milli-GPU, bytes, micro-USD per hour, ms.

`parse_` functions raise ValueError with a sentence that can be shown to the user.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40
_SIZES: Final = {
    "": GIB,
    "b": 1,
    "k": KIB,
    "kb": KIB,
    "ki": KIB,
    "kib": KIB,
    "m": MIB,
    "mb": MIB,
    "mi": MIB,
    "mib": MIB,
    "g": GIB,
    "gb": GIB,
    "gi": GIB,
    "gib": GIB,
    "t": TIB,
    "tb": TIB,
    "ti": TIB,
    "tib": TIB,
    "p": TIB << 10,
    "pb": TIB << 10,
}
_DURATIONS: Final = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600, "d": 86400, "w": 604800}


class Bound(msgspec.Struct, frozen=True, omit_defaults=True):
    """A wished-for amount: at least `amount`, or exactly it."""

    amount: int
    exact: bool = False

    def holds(self, have: int) -> bool:
        return have == self.amount if self.exact else have >= self.amount


def parse_milli(text: str | int | float) -> int:
    """A count such as `4`, `0.25` as thousandths.

    >>> parse_milli("0.25")
    250
    """
    try:
        value = round(float(text) * 1000)
    except (ValueError, OverflowError):
        raise ValueError(f"`{text}` is not a number") from None
    if value <= 0 < float(text):
        raise ValueError(f"`{text}` is finer than can be counted: at least 0.001")
    if value <= 0:
        raise ValueError(f"`{text}` must be above 0")
    return value


def parse_cpus(text: str | int | float) -> Bound:
    """`4+` is at least 4, `4` exactly 4; in milli-CPU."""
    body = str(text).strip()
    plus = body.endswith("+")
    return Bound(parse_milli(body[:-1] if plus else body), exact=not plus)


def parse_size(text: str | int | float, *, unit: int = GIB) -> int:
    """Bytes of `8`, `8GB`, `512MB`; a bare number counts `unit`s."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)", str(text).strip())
    if match is None or match[2].lower() not in _SIZES:
        raise ValueError(f"`{text}` is not a size; write for example `8`, `512MB` or `1.5TB`")
    scale = _SIZES[match[2].lower()] if match[2] else unit
    value = int(float(match[1]) * scale)
    if value <= 0:
        raise ValueError(f"`{text}` must be above 0")
    return value


def parse_duration_s(text: str | int | float, *, unit_s: int = 60) -> int:
    """Seconds of `10` (in `unit_s`), `90s`, `10m`, `36h`, `1h30m`."""
    body = str(text).strip().lower()
    if re.fullmatch(r"[0-9]*\.?[0-9]+", body):
        return round(float(body) * unit_s)
    parts = re.findall(r"([0-9]*\.?[0-9]+)([a-z]+)", body)
    if (
        not parts
        or "".join(a + b for a, b in parts) != body.replace(" ", "")
        or any(b not in _DURATIONS for _, b in parts)
    ):
        raise ValueError(f"`{text}` is not a duration; write for example `90s`, `10m`, `36h` or `1h30m`")
    return round(sum(float(a) * _DURATIONS[b] for a, b in parts))


def render_milli(milli: int) -> str:
    """
    >>> render_milli(2500), render_milli(4000)
    ('2.5', '4')
    """
    return f"{milli / 1000:.3f}".rstrip("0").rstrip(".")


def render_bytes(amount: int) -> str:
    """
    >>> render_bytes(3 << 30)
    '3 GB'
    """
    value = float(amount)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024:
            return f"{value:.1f}".rstrip("0").rstrip(".") + f" {unit}"
        value /= 1024
    return f"{value:.1f}".rstrip("0").rstrip(".") + " TB"


def render_disk(amount: int) -> str:
    """GB of 10^9 bytes, as local disks are sold.

    >>> render_disk(3_800 * 10**9), render_disk(512 << 30)
    ('3800 GB', '549.8 GB')
    """
    return f"{amount / 10**9:.1f}".removesuffix(".0") + " GB"


def render_price(micro_usd: int) -> str:
    """Micro-USD as dollars.

    >>> render_price(0), render_price(1_250_000)
    ('$0', '$1.25')
    """
    if micro_usd == 0:
        return "$0"
    dollars = micro_usd / 1_000_000
    return f"${dollars:,.2f}" if dollars >= 0.01 else f"${dollars:.4f}"


def render_duration(seconds: float) -> str:
    """
    >>> render_duration(3700), render_duration(42)
    ('1h 1m', '42s')
    """
    total = int(seconds)
    for size, name, below, sub in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if total >= size:
            rest = (total % size) // below
            return f"{total // size}{name} {rest}{sub}" if rest else f"{total // size}{name}"
    return f"{total}s"


def render_date(day: int) -> str:
    """Of a day counted from 1970-01-01, where 0 says that there is no date.

    >>> render_date(20_454), render_date(0)
    ('2026-01-01', '')
    """
    return render_day(day) if day else ""


def render_day(day: int) -> str:
    """Of a day counted from 1970-01-01.

    >>> render_day(0)
    '1970-01-01'
    """
    import datetime  # most processes render none

    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()


def many(count: int | str, noun: str) -> str:
    """A number with its noun, in the singular for one.

    >>> many(1, "node"), many(2, "entry"), many("1.5", "GPU"), many(1200, "key")
    ('1 node', '2 entries', '1.5 GPUs', '1,200 keys')
    """
    said = f"{count:,}" if isinstance(count, int) else count
    if said == "1":
        return f"1 {noun}"
    if noun[-1:] == "y" and noun[-2:-1] not in "aeiou":
        return f"{said} {noun[:-1]}ies"
    return f"{said} {noun}s"


def do(count: int, verb: str) -> str:
    """A number with its verb, for what was named before.

    >>> do(0, "wait"), do(1, "wait"), do(2, "wait")
    ('none waits', '1 waits', '2 wait')
    """
    return f"{count or 'none'} {verb}{'s' if count < 2 else ''}"


def many_do(count: int, noun: str, verb: str) -> str:
    """
    >>> many_do(1, "job", "run"), many_do(3, "job", "run")
    ('1 job runs', '3 jobs run')
    """
    return f"{many(count, noun)} {verb}{'s' if count == 1 else ''}"


def render_chance(probability: float) -> str:
    """
    >>> render_chance(1.0), render_chance(0.9996), render_chance(0.42), render_chance(0.0001), render_chance(0.0)
    ('100%', '>99.9%', '42%', '<0.1%', '0%')
    """  # noqa: E501
    if probability >= 1:
        return "100%"
    if probability > 0.999:
        return ">99.9%"
    if probability <= 0:
        return "0%"
    if probability < 0.001:
        return "<0.1%"
    return f"{probability * 100:.1f}".removesuffix(".0") + "%"
