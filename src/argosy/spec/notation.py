"""How amounts and places are written in YAML: `parse_` reads the text, `render_` writes text that reads back.

`parse_` functions raise ValueError with a sentence for the user.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

from argosy.model.errors import suggest
from argosy.model.places import ALIASES, REGION_IS_REST
from argosy.model.resources import Infra, LocalDisk
from argosy.model.units import (
    GIB,
    KIB,
    MIB,
    TIB,
    Bound,
    parse_cpus,
    parse_duration_s,
    parse_size,
    render_milli,
)
from argosy.spec.findings import excerpt

#: Amounts above this are typing errors; it keeps every derived amount within 63 bits.
_BYTES_MAX: Final = 1 << 60
_CPUS_MILLI_MAX: Final = 10_000_000
_SECONDS_MAX: Final = 10 * 366 * 86400

SCHEMES: Final = (
    *("s3", "gs", "r2", "cos", "oci", "nebius", "cw", "hf", "http", "https"),
    *("azblob", "abfs", "abfss", "az", "vastdata", "ftp", "file"),
)
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://(.*)", re.DOTALL)


class Memory(NamedTuple):
    """`8+` is a bound in bytes; `4x` is bytes per CPU."""

    bound: Bound | None
    per_cpu_bytes: int = 0


NODES_MAX: Final = 100_000


class Deadline(NamedTuple):
    """One of the two: so long after the submission, or at a time (UTC)."""

    after_s: int | None
    at_ms: int | None


class NodeRange(NamedTuple):
    """An elastic gang: as many nodes as can be had, never fewer than `least`."""

    least: int
    most: int


def parse_nodes(text: str) -> NodeRange:
    """
    >>> parse_nodes("2-8")
    NodeRange(least=2, most=8)
    """
    found = re.fullmatch(r"\s*([0-9]{1,6})\s*-\s*([0-9]{1,6})\s*", text)
    if found is None:
        raise ValueError(
            f"`{excerpt(text)}` is no number of nodes; write a number such as 4, or a range such as `2-8`"
        )
    least, most = int(found[1]), int(found[2])
    if not 1 <= least < most <= NODES_MAX:
        raise ValueError(
            f"`{excerpt(text)}` is no range of nodes; write the smaller number first, as in `2-8`"
        )
    return NodeRange(least, most)


def parse_deadline(text: str) -> Deadline:
    """
    >>> parse_deadline("36h"), parse_deadline("1970-01-02 00:00")
    (Deadline(after_s=129600, at_ms=None), Deadline(after_s=None, at_ms=86400000))
    """
    body = text.strip()
    if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", body):
        import datetime

        try:
            moment = datetime.datetime.fromisoformat(body)
        except ValueError:
            raise ValueError(
                f"`{excerpt(text)}` is no time; write for example `2030-01-31 18:00` or "
                "`2030-01-31T18:00+09:00`"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return Deadline(None, round(moment.timestamp() * 1000))
    return Deadline(parse_span(text), None)


def parse_part_milli(text: str) -> int:
    """A part of the whole in thousandths.

    >>> parse_part_milli("40%"), parse_part_milli("0.4"), parse_part_milli("1")
    (400, 400, 1000)
    """
    body = text.strip()
    percent = body.endswith("%")
    if re.fullmatch(r"[0-9]*\.?[0-9]+\s*%?", body):
        milli = round(Decimal(body.rstrip("% ")) * (10 if percent else 1000))
        if milli <= 1000:
            return milli
    raise ValueError(f"`{excerpt(text)}` is no part of a whole; write for example `40%` or `0.4`")


def parse_hours_s(text: str) -> int:
    """Seconds of a number of hours, or of a duration.

    >>> parse_hours_s("6.5"), parse_hours_s("90m")
    (23400, 5400)
    """
    try:
        hours = float(text)
    except ValueError:
        return parse_span(text)
    if not 0 < hours * 3600 <= _SECONDS_MAX:
        raise ValueError(f"`{excerpt(text)}` is no number of hours above 0")
    return max(1, round(hours * 3600))


def render_part(milli: int) -> str:
    return f"{milli / 10:g}%"


def render_deadline(after_s: int | None, at_ms: int | None) -> str | None:
    """What `parse_deadline` reads back; None when there is none."""
    if at_ms is not None:
        import datetime

        moment = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
        text = moment.strftime("%Y-%m-%d %H:%M")
        return text if at_ms % 60_000 == 0 else moment.isoformat(sep=" ", timespec="milliseconds")
    return None if after_s is None else f"{after_s}s" if after_s % 3600 else f"{after_s // 3600}h"


_AMOUNT: Final = re.compile(r"\s*[<>]?=?\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*")


def _scaled(text: str, units: dict[str, int], what: str) -> int:
    found = _AMOUNT.fullmatch(text)
    scale = units.get(found[2].lower()) if found else None
    if found is None or scale is None or not 0 < round(float(found[1]) * scale) < _BYTES_MAX:
        raise ValueError(f"`{excerpt(text)}` is no {what}")
    return round(float(found[1]) * scale)


def parse_bandwidth_kbps(text: str) -> int:
    """
    >>> parse_bandwidth_kbps("50Mbps"), parse_bandwidth_kbps("1.5 Gbps")
    (50000, 1500000)
    """
    units = {"kbps": 1, "mbps": 1000, "gbps": 1_000_000, "kbit": 1, "mbit": 1000, "gbit": 1_000_000}
    return _scaled(text, units, "bandwidth; write for example `50Mbps`")


def parse_latency_us(text: str) -> int:
    """
    >>> parse_latency_us("<50ms"), parse_latency_us("0.1s")
    (50000, 100000)
    """
    return _scaled(text, {"us": 1, "ms": 1000, "s": 1_000_000}, "latency; write for example `<50ms`")


def parse_power_mw(text: str) -> int:
    """
    >>> parse_power_mw("300W"), parse_power_mw("0.5 kW")
    (300000, 500000)
    """
    return _scaled(text, {"mw": 1, "w": 1000, "kw": 1_000_000}, "power; write for example `300W`")


def parse_cpus_text(text: str) -> Bound:
    """
    >>> parse_cpus_text("4+")
    Bound(amount=4000, exact=False)
    """
    bound = parse_cpus(_number_text(text))
    if bound.amount > _CPUS_MILLI_MAX:
        raise ValueError(f"`{excerpt(text)}` CPUs are more than any machine has")
    return bound


def _number_text(text: str) -> str:
    # float() also takes `nan`, `inf`, `1_000` and `１`; none of these is an amount.
    if not re.fullmatch(r"\s*[0-9]*\.?[0-9]+\+?\s*", text):
        negative = re.fullmatch(r"\s*-[0-9.]+\+?\s*", text)
        what = "must be positive (got {})" if negative else "must be a number (got {})"
        raise ValueError(f"{what.format(excerpt(text))}; write for example `4`, `4+` or `0.5`")
    return text.strip()


def parse_memory(text: str) -> Memory:
    """
    >>> parse_memory("4x")
    Memory(bound=None, per_cpu_bytes=4294967296)
    """
    body = text.strip()
    if body.lower().rstrip("+").endswith("x"):
        return Memory(None, parse_bytes(body.lower().rstrip("+")[:-1]))
    plus = body.endswith("+")
    return Memory(Bound(parse_bytes(body[:-1] if plus else body), exact=not plus))


def parse_bytes(text: str) -> int:
    """Bytes of `8` (GB), `512MB`, `1.5TB`.

    >>> parse_bytes("512MB") == 512 << 20
    True
    """
    if len(text) > 40:
        raise ValueError(f"`{excerpt(text)}` is not a size; write for example `8`, `512MB` or `1.5TB`")
    amount = parse_size(text)
    if amount > _BYTES_MAX:
        raise ValueError(f"`{excerpt(text)}` is more than exists")
    return amount


def number(text: str) -> str | int:
    """A number needs no quotes in YAML.

    >>> number("8"), number("8+")
    (8, '8+')
    """
    return int(text) if text.isdigit() else text


def render_size(amount: int) -> str:
    """A size that reads back to exactly `amount`.

    >>> render_size(3 << 30), render_size(512 << 20)
    ('3GB', '512MB')
    """
    for unit, name in ((TIB, "TB"), (GIB, "GB"), (MIB, "MB"), (KIB, "KB")):
        if amount >= unit and amount % unit == 0:
            return f"{amount // unit}{name}"
    return f"{amount}B"


HOURS: Final = ((3600, "h"), (60, "m"))
DAYS: Final = ((86_400, "d"), *HOURS)


def render_span(seconds: int, units: Sequence[tuple[int, str]] = HOURS) -> str:
    """A duration that reads back to exactly `seconds`.

    >>> render_span(5400), render_span(7200), render_span(172_800), render_span(172_800, DAYS), render_span(0)
    ('90m', '2h', '48h', '2d', '0s')
    """
    for unit_s, name in units:
        if seconds and seconds % unit_s == 0:
            return f"{seconds // unit_s}{name}"
    return f"{seconds}s"


def render_bound_size(bound: Bound) -> str:
    return render_size(bound.amount) + ("" if bound.exact else "+")


def render_cpus(bound: Bound) -> str:
    return render_milli(bound.amount) + ("" if bound.exact else "+")


_DISK_KINDS: Final = ("nvme", "ssd")
_DISK_UNITS: Final = {
    **{"": 10**9, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
    **{"kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB},
}


def parse_local_disk(text: str) -> LocalDisk:
    """`[KIND:]SIZE[+]` or `KIND`. GB are 10^9 bytes, as those who sell disks count.

    >>> parse_local_disk("nvme:500+").render(), parse_local_disk("1.5TB").bound
    ('nvme:500+', Bound(amount=1500000000000, exact=True))
    """
    body = text.strip().lower()
    kind, colon, size = (
        (part.strip() for part in body.partition(":")) if body[:1].isalpha() else ("", "", body)
    )
    if kind and kind not in _DISK_KINDS:
        hint = suggest(kind, _DISK_KINDS, otherwise="write `nvme:500+`, `ssd:500+` or `500+`")
        raise ValueError(f"`{excerpt(kind)}` is no kind of local disk; {hint}")
    if kind and not colon:
        return LocalDisk(kind=kind)
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([a-z]*)\s*(\+?)", size) if len(size) <= 40 else None
    unit = _DISK_UNITS.get(found[2]) if found else None
    if found is None or unit is None:
        raise ValueError(
            f"`{excerpt(text)}` is no local disk; write for example `nvme:500+`, `1.5TB` or `nvme`"
        )
    amount = int(Decimal(found[1]) * unit)
    if amount <= 0:
        raise ValueError(f"`{excerpt(text)}` asks for no disk; leave it out, or write a size above 0")
    if amount > _BYTES_MAX:
        raise ValueError(f"`{excerpt(text)}` is more than exists")
    return LocalDisk(kind=kind, bound=Bound(amount, exact=not found[3]))


def parse_strategy(text: str) -> str:
    """A recovery strategy as it is spelled here, or `own:NAME` of a plug-in.

    >>> parse_strategy("eager_next_region"), parse_strategy("own:Nightly")
    ('EAGER_NEXT_REGION', 'own:Nightly')
    """
    words = {word.lower(): word for word in ("FAILOVER", "EAGER_NEXT_REGION", "auto", "none")}
    if text.startswith("own:") and len(text) > len("own:"):
        return text
    if text.lower() == "dynamic_node_set":
        raise ValueError(f"`{text}` is said by a range of nodes: `num_nodes: 2-8`; leave the strategy out")
    if text.lower() not in words:
        raise ValueError(f"`{text}` is none of {', '.join(words.values())}, and not `own:NAME` of a plug-in")
    return words[text.lower()]


def parse_minutes(text: str) -> int:
    """Seconds of `10` (minutes), `90s`, `1h30m`."""
    return _seconds(text, unit_s=60)


def parse_seconds(text: str) -> int:
    """Seconds of `30`, `90s`, `5m`."""
    return _seconds(text, unit_s=1)


def parse_span(text: str) -> int:
    """Seconds of `36h`; a bare number is refused, for nobody can tell its unit.

    >>> parse_span("1h30m")
    5400
    """
    if re.fullmatch(r"\s*[0-9]*\.?[0-9]+\s*", text):
        raise ValueError(
            f"`{excerpt(text)}` needs a unit; write for example `{excerpt(text.strip())}h` or `90m`"
        )
    seconds = _seconds(text, unit_s=60)
    if seconds == 0:
        raise ValueError(f"`{excerpt(text)}` must be above 0")
    return seconds


def _seconds(text: str, *, unit_s: int) -> int:
    if len(text) > 40:
        raise ValueError(f"`{excerpt(text)}` is not a duration; write for example `90s`, `10m` or `36h`")
    seconds = parse_duration_s(text, unit_s=unit_s)
    if seconds > _SECONDS_MAX:
        raise ValueError(f"`{excerpt(text)}` is longer than ten years")
    return seconds


def parse_price(text: str) -> int:
    """Micro-USD of `40`, `$1.25`, `40/h`.

    >>> parse_price("$1.25")
    1250000
    """
    body = re.sub(r"\s*/\s*(h|hr|hour)$", "", text.strip().removeprefix("$").strip())
    try:
        micro = int(Decimal(body) * 1_000_000) if len(body) < 30 else -1
    except (InvalidOperation, ValueError, OverflowError):
        micro = -1
    if not 0 < micro < 10**15:
        raise ValueError(f"`{excerpt(text)}` is no price; write dollars per hour, for example `40` or `2.50`")
    return micro


def render_price_number(micro_usd: int) -> str:
    """
    >>> render_price_number(1_250_000)
    '1.25'
    """
    return f"{Decimal(micro_usd) / 1_000_000:f}"


def parse_infra(text: str) -> Infra:
    """`provider[/region[/zone]]`; `*` or nothing is anywhere.

    >>> parse_infra("aws/*/us-east-1a")
    Infra(provider='aws', region=None, zone='us-east-1a')
    """
    parts = [part.strip() for part in text.strip().strip("/").split("/")]
    provider = parse_provider(parts[0]) if parts[0] not in ("", "*") else None
    rest = parts[1:]
    if provider in REGION_IS_REST and rest:
        rest = ["/".join(rest)]
    if len(rest) > 2 or any(not part for part in rest):
        raise ValueError(
            f"`{excerpt(text)}` is no place; write `provider`, `provider/region` or `provider/region/zone`"
        )
    region, zone = ([None if part == "*" else part for part in rest] + [None, None])[:2]
    return Infra(provider=provider, region=region, zone=zone)


def parse_provider(text: str) -> str:
    name = text.strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9_\-]{0,62}", name):
        raise ValueError(f"`{excerpt(text)}` is no name of an infrastructure")
    return ALIASES.get(name, name)


def render_infra(infra: Infra) -> str:
    """The text that reads back; empty for anywhere."""
    parts = [infra.provider or "*", infra.region or "*", infra.zone or "*"]
    while parts and parts[-1] == "*":
        parts.pop()
    return "/".join(parts)


def parse_domain(text: str) -> str:
    """A host that a certificate can name, in lower case; `*.` stands for one label.

    >>> parse_domain("Chat.Example.org")
    'chat.example.org'
    """
    label = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
    if re.fullmatch(rf"(?:\*\.)?{label}(?:\.{label})+", text.lower()) is None or len(text) > 253:
        raise ValueError(
            f"{excerpt(text)} is not the name of a host; write for example `chat.example.org`, without port"
        )
    return text.lower()


def parse_affinity(text: str) -> str:
    """By what users are told apart: `key`, `address`, `header:NAME` or `cookie:NAME`.

    >>> parse_affinity("header: X-User")
    'header:x-user'
    """
    what, colon, name = (each.strip() for each in text.partition(":"))
    if what in ("key", "address") and not colon:
        return what
    if what not in ("header", "cookie") or re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) is None:
        raise ValueError(
            f"{excerpt(text)} tells no user apart; write `header:NAME`, `cookie:NAME`, `key` or `address`"
        )
    return f"{what}:{name.lower() if what == 'header' else name}"


def parse_port(text: str) -> str:
    """`8000`, or a range `8000-8010`.

    >>> parse_port(" 8000 - 8010 ")
    '8000-8010'
    """
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5}))?\s*", text)
    if match is None:
        raise ValueError(f"{excerpt(text)} is not a valid port; write for example `8000` or `8000-8010`")
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= 65535 or not 1 <= high <= 65535:
        raise ValueError(f"{excerpt(text)} is not a valid port (1–65535)")
    if high < low:
        raise ValueError(f"`{excerpt(text)}` ends before it begins")
    return str(low) if low == high else f"{low}-{high}"


def split_url(text: str) -> tuple[str, str] | None:
    """Scheme and rest of a URL; None for a local path."""
    match = _URL.fullmatch(text)
    return (match[1].lower(), match[2]) if match else None


def parse_source(text: str) -> str:
    """A local path or the URL of a store."""
    if not text.strip():
        raise ValueError("the source is empty")
    url = split_url(text)
    if url and url[0] not in SCHEMES:
        hint = suggest(
            url[0], SCHEMES, otherwise="known are " + ", ".join(f"`{one}://`" for one in SCHEMES[:8])
        )
        raise ValueError(f"`{excerpt(url[0])}://` is no known kind of store; {hint}")
    return text


def parse_path(text: str) -> str:
    """A path that is not empty."""
    if not text.strip():
        raise ValueError("the path is empty")
    return text


def parse_address(text: str) -> str:
    """Who is told: a URL, an e-mail address or the name of a channel. The text is in no error: a URL may be a
    secret.

    >>> parse_address("me@example.com"), parse_address("team")
    ('me@example.com', 'team')
    """
    if text == "***" or "://" in text:
        scheme = text.partition("://")[0]
        if text != "***" and scheme not in ("http", "https", "slack+http", "slack+https"):
            raise ValueError(
                "a URL begins with `https://`; for a service that takes what Slack takes `slack+https://`"
            )
        return text
    if any(char.isspace() for char in text) or not text or text.count("@") > 1:
        raise ValueError("it is no address: a URL, an e-mail address or the name of a channel")
    return text


def parse_secret_path(text: str) -> str:
    """Where a secret is a file: a plain name, or a whole path.

    >>> parse_secret_path("/run/secrets/key")
    '/run/secrets/key'
    """
    parts = text.split("/")
    if ".." in parts or "\0" in text or (parts[0] == "" and parts[-1] == ""):
        raise ValueError(f"`{text}` is no path of a file; write for example `/run/secrets/key`")
    if not text.startswith("/") and (len(parts) > 1 or text.startswith((".", "~"))):
        raise ValueError(
            f"`{text}` is neither a name nor a path from `/`; write for example `/run/secrets/key`"
        )
    return text
