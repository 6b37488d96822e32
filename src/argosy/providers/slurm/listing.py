"""What Slurm's commands print, as values. Pure.

Only text formats are read, with a unit separator between fields: `squeue` and `sinfo` with `-o`, `scontrol`
with
`-o`. They are the same from 20.11 to 25.x, while JSON differs from version to version and is missing in
many builds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

SEPARATOR: Final = "\x1f"
#: `sinfo -h -e -o`: partition, default mark, nodes, state, GRES, CPUs, MiB, features, time limit, default
#: time, size,
#: availability, node list, groups.
SINFO: Final = SEPARATOR.join(
    ("%R", "%P", "%D", "%T", "%G", "%c", "%m", "%f", "%l", "%L", "%s", "%a", "%N", "%g")
)
#: `squeue -h --states=all -o`: id, name, state, reason, node list, comment, number of nodes, partition,
#: start, end.
SQUEUE: Final = SEPARATOR.join(("%i", "%j", "%T", "%r", "%N", "%k", "%D", "%P", "%S", "%e"))

_NOTHING: Final = frozenset({"", "(null)", "N/A", "n/a", "None", "none", "NONE", "Unknown"})
_INFINITE: Final = frozenset({"infinite", "INFINITE", "UNLIMITED"})
_GRES: Final = re.compile(
    r"(?P<name>[A-Za-z_]\w*)(?::(?P<type>[^:(),]+?))??(?::(?P<count>\d+)(?P<unit>[KMGkmg]?))?(?:\(.*\))?"
)
#: Marks that `sinfo` puts after a state: not responding, powered down, powering up or down, reboot,
#: reserved, planned.
_MARKS: Final = "*~#!%$@^-+"


class Gres(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one kind that a node has: `gpu:h100:8` is name, type and count."""

    name: str
    type: str = ""
    count: int = 1

    @property
    def text(self) -> str:
        """As `--gres` takes it, without the count."""
        return f"{self.name}:{self.type}" if self.type else self.name


class NodeGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of one partition that are alike and in the same state: one line of `sinfo`."""

    partition: str
    is_default: bool = False
    state: str  # idle, mixed, allocated, draining, down, ... without marks
    answers: bool = True  # it is not marked with `*`
    nodes: tuple[str, ...]
    gres: tuple[Gres, ...] = ()
    cpus: int
    memory_mib: int
    features: tuple[str, ...] = ()
    time_limit_s: int | None = None  # None: none
    default_time_s: int | None = None
    nodes_max: int | None = None  # of one job; None: no limit
    is_up: bool = True
    groups: tuple[str, ...] = ()  # who may use it; (): everybody


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `squeue`."""

    id: str
    name: str
    state: str  # PENDING, RUNNING, ...
    reason: str = ""
    nodes: tuple[str, ...] = ()
    comment: str = ""
    count: int = 1
    partition: str = ""
    start: str = ""  # when it started, or Slurm's estimate; "": not known
    end: str = ""


def parse_sinfo(text: str) -> list[NodeGroup]:
    """Lines of `sinfo -h -e -o SINFO`. What does not parse is left out.

    >>> line = SEPARATOR.join(("gpu", "gpu*", "2", "idle*", "gpu:h100:8(S:0-1)", "64", "512000", "ib,h100",
    ...     "2-00:00:00", "1:00:00", "1-4", "up", "n[1-2]", "all"))
    >>> (group,) = parse_sinfo(line)
    >>> group.nodes, group.gres[0].text, group.gres[0].count, group.answers
    (('n1', 'n2'), 'gpu:h100', 8, False)
    >>> group.time_limit_s, group.nodes_max
    (172800, 4)
    """
    groups = []
    for line in text.splitlines():
        fields = line.split(SEPARATOR)
        if len(fields) != SINFO.count(SEPARATOR) + 1:
            continue
        name, marked, _, state, gres, cpus, memory, features, limit, default, size, up, nodes, allowed = (
            field.strip() for field in fields
        )
        if not _number(cpus) or not _number(memory):
            continue
        groups.append(
            NodeGroup(
                partition=name,
                is_default=marked.endswith("*"),
                state=state.rstrip(_MARKS).lower(),
                answers="*" not in state,
                nodes=tuple(expand_nodes(nodes)),
                gres=tuple(parse_gres(gres)),
                cpus=_number(cpus),
                memory_mib=_number(memory),
                features=() if features in _NOTHING else tuple(features.split(",")),
                time_limit_s=parse_time(limit),
                default_time_s=parse_time(default),
                nodes_max=_most(size),
                is_up=up.lower() == "up",
                groups=() if allowed in ("all", *_NOTHING) else tuple(allowed.split(",")),
            )
        )
    return groups


def parse_squeue(text: str) -> list[Job]:
    """Lines of `squeue -h --states=all -o SQUEUE`. What does not parse is left out.

    >>> words = "7 clm-x PENDING Resources (null) argosy:sto-1 2 gpu N/A N/A"
    >>> line = words.replace(" ", SEPARATOR)
    >>> parse_squeue(line)[0].reason, parse_squeue("slurm_load_jobs error")
    ('Resources', [])
    """
    jobs = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(SEPARATOR)]
        if len(fields) != SQUEUE.count(SEPARATOR) + 1:
            continue
        known = ["" if field in _NOTHING else field for field in fields]
        jobs.append(
            Job(
                id=fields[0],
                name=known[1],
                state=fields[2].upper(),
                reason=known[3],
                nodes=tuple(expand_nodes(known[4])),
                comment=known[5],
                count=_number(fields[6]) or 1,
                partition=known[7],
                start=known[8],
                end=known[9],
            )
        )
    return jobs


def parse_gres(text: str) -> Iterator[Gres]:
    """Devices of a node, as `%G` of `sinfo` and `Gres=` of `scontrol` write them.

    >>> [(each.text, each.count) for each in parse_gres("gpu:h100:8(S:0-1),shard:32,gpu:2,nic(count:1)")]
    [('gpu:h100', 8), ('shard', 32), ('gpu', 2), ('nic', 1)]
    >>> list(parse_gres("(null)"))
    []
    """
    if text in _NOTHING:
        return
    for word in re.split(r",(?![^(]*\))", text):
        found = _GRES.fullmatch(word.strip())
        if found is None:
            continue
        kind = found["type"] or ""
        count = int(found["count"]) if found["count"] else 1
        count *= {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get((found["unit"] or "").lower(), 1)
        yield Gres(name=found["name"], type=kind, count=count)


def parse_time(text: str) -> int | None:
    """Seconds of `days-hours:minutes:seconds`, `hours:minutes:seconds`, `minutes:seconds` or `minutes`;
    None: no limit.

    >>> [parse_time(text) for text in ("2-00:00:00", "1:00:00", "30:00", "45", "infinite")]
    [172800, 3600, 1800, 2700, None]
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if found is None:
        return None
    days, first, second, third = (int(part) if part else None for part in found.groups())
    if days is not None:  # days-hours[:minutes[:seconds]]
        return days * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
    if third is not None:
        return (first or 0) * 3600 + (second or 0) * 60 + third
    return (first or 0) * 60 + (second or 0)


def render_time(seconds: int) -> str:
    """As `--time` takes it.

    >>> render_time(90000), render_time(61)
    ('1-01:00:00', '0-00:01:01')
    """
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{rest:02}"


def expand_nodes(text: str) -> Iterator[str]:
    """Names of a compressed list of nodes, in its order.

    >>> list(expand_nodes("n[1-3,07],login,r[1-2]c[01-02]"))
    ['n1', 'n2', 'n3', 'n07', 'login', 'r1c01', 'r1c02', 'r2c01', 'r2c02']
    """
    if text in _NOTHING:
        return
    for word in re.split(r",(?![^\[]*\])", text):
        if word:
            yield from _expand(word)


def _expand(word: str) -> Iterator[str]:
    found = re.search(r"\[([^\]]*)\]", word)
    if found is None:
        yield word
        return
    before, after = word[: found.start()], word[found.end() :]
    for part in found[1].split(","):
        first, dash, last = part.partition("-")
        numbers = [first]
        if dash and first.isdigit() and last.isdigit():
            numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        for number in numbers:
            for rest in _expand(after):
                yield before + number + rest


def parse_record(line: str) -> dict[str, str]:
    """`Name=value` pairs of one line of `scontrol show ... -o`; a value may hold spaces.

    >>> parse_record("NodeName=n1 OS=Linux 6.1 #1 SMP State=IDLE+DRAIN Reason=xid 79 [root@2024]")["OS"]
    'Linux 6.1 #1 SMP'
    """
    found = re.split(r"(?:^|\s)([A-Za-z][\w/:]*)=", line.strip())
    return {name: value.strip() for name, value in zip(found[1::2], found[2::2], strict=True)}


def parse_records(text: str) -> list[dict[str, str]]:
    """One for each line of `scontrol show ... -o` that holds pairs."""
    return [parse_record(line) for line in text.splitlines() if "=" in line]


def parse_version(text: str) -> tuple[int, int]:
    """Of `sinfo --version`; (0, 0) when it says none.

    >>> parse_version("slurm 23.11.4"), parse_version("slurm-wlm 22.05.8"), parse_version("")
    ((23, 11), (22, 5), (0, 0))
    """
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _number(text: str) -> int:
    """The leading number: `2000+` and `2K` are what sinfo writes of unlike nodes and of large ones."""
    found = re.match(r"(\d+)([KMGT]?)", text)
    if found is None:
        return 0
    return int(found[1]) * {"": 1, "K": 1000, "M": 10**6, "G": 10**9, "T": 10**12}[found[2]]


def _most(size: str) -> int | None:
    """The larger number of `1-4`; None for `1-infinite`."""
    last = size.rpartition("-")[2]
    return None if last in _INFINITE else _number(last) or None
