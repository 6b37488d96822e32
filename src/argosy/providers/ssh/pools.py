"""Which hosts there are: in `pools.yaml`, SkyPilot's `~/.sky/ssh_node_pools.yaml`, and by `argosy pool add`.

    lab:
      user: me                       # for all hosts below; each may have its own
      identity_file: ~/.ssh/lab
      jump: me@bastion
      hosts:
        - gpu1                       # an address, or a name of ~/.ssh/config
        - {name: gpu2, address: 10.0.0.8, port: 2222, labels: {disk: nvme}, domains: [block1, rack1]}

The files of people are read and never written. All are read again when they have changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from argosy.infra.ssh_target import HostKeys, SshTarget
from argosy.model.errors import CODES, ArgosyError
from argosy.spec.findings import Findings, Warning_
from argosy.spec.reader import Reader
from argosy.spec.shapes import (
    AsText,
    Choice,
    Entry,
    Field,
    ListOf,
    MapOf,
    Notation,
    OneOf,
    Section,
    Table,
    Text,
    Whole,
)
from argosy.spec.source import Pairs, compose

FILE: Final = "pools.yaml"
SKY_FILE: Final = "ssh_node_pools.yaml"
_HINT: Final = (
    "`argosy pool add NAME --hosts HOST,HOST` makes a pool without any file; docs/ssh-pools.md shows the file"
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST: Final = re.compile(r"(?:([^@\s]+)@)?(?:\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?")

State = Literal["", "cordoned", "drained"]


class Host(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host of a pool, and the way to it. What is empty is left to ssh's own configuration."""

    pool: str
    name: str  # as people call it; unique in its pool
    address: str
    user: str = ""
    port: int = 0
    key_file: str = ""
    jumps: tuple[str, ...] = ()
    config_file: str = ""
    known_hosts: str = ""
    host_keys: HostKeys = "ask-config"
    folder: str = "~/.argosy"  # there: agents, nodes and what they hold
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    source: str = ""  # where it is written: `pools.yaml:7:9`; "": by `pool add`

    @property
    def id(self) -> str:
        """`lab/gpu1`, as in `infra: ssh/lab/gpu1`."""
        return f"{self.pool}/{self.name}"

    def target(self) -> SshTarget:
        return SshTarget(
            host=self.address,
            user=self.user,
            port=self.port,
            key_file=str(Path(self.key_file).expanduser()) if self.key_file else "",
            jumps=self.jumps,
            config_file=str(Path(self.config_file).expanduser()) if self.config_file else "",
            known_hosts=self.known_hosts,
            host_keys=self.host_keys,
        )


class Closed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host that takes nothing new because somebody said so."""

    state: State  # cordoned | drained: managed jobs leave it, too
    since_ms: int = 0


class Pools(msgspec.Struct, frozen=True, kw_only=True):
    """All hosts by id, in the order in which they are written, and what is to be said about the files."""

    hosts: Mapping[str, Host] = {}
    warnings: tuple[str, ...] = ()

    def of(self, pool: str) -> list[Host]:
        return [host for host in self.hosts.values() if host.pool == pool]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(host.pool for host in self.hosts.values()))


def parse_host(text: str) -> tuple[str, str, int]:
    """User, address and port of `gpu1`, `me@gpu1`, `me@10.0.0.7:2222` or `[2001:db8::7]:22`. ValueError says
    what is wrong.

    >>> parse_host("me@gpu1:2222"), parse_host("2001:db8::7")
    (('me', 'gpu1', 2222), ('', '2001:db8::7', 0))
    """
    bare = text.strip()
    if bare.count(":") > 1 and "[" not in bare and "@" not in bare:
        return "", bare, 0  # a bare IPv6 address
    found = _HOST.fullmatch(bare)
    if found is None or (found[4] and not 0 < int(found[4]) < 65536):
        raise ValueError(f"`{text}` is no host; write for example `gpu1`, `me@gpu1` or `10.0.0.7:2222`")
    return found[1] or "", found[2] or found[3], int(found[4] or 0)


def check_name(text: str) -> str:
    """A name of a pool or host. ValueError says what is wrong."""
    if _NAME.fullmatch(text) is None:
        raise ValueError(f"`{text}` is no name; it has letters, digits, `.`, `-` and `_` only")
    return text


# --- the table of fields ---------------------------------------------------------------------------


def _a_name(says: str) -> Notation:
    return Notation(says=says, parse=check_name, pattern=_NAME.pattern)


def _checked_host(text: str) -> str:
    parse_host(text)
    return text


_A_HOST: Final = Notation(says="a host", parse=_checked_host)
_WAY: Final = (
    Field(name="user", shape=Text(says="a user name"), doc="Who logs in.", example="me"),
    Field(name="port", shape=Whole(minimum=1, maximum=65535, says="a port"), doc="Of sshd.", example="2222"),
    Field(
        name="identity_file",
        shape=Text(says="the path of a private key"),
        doc="The key to log in with.",
        example="~/.ssh/id_ed25519",
        also=("key", "key_file", "identity"),
    ),
    Field(
        name="jump",
        shape=ListOf(item=Text(says="a host"), one_will_do=True, says="a host or a list of hosts"),
        doc="Hosts to go through, first the one that is reached directly.",
        example="me@bastion",
        also=("proxy_jump", "jump_host"),
    ),
    Field(
        name="ssh_config",
        shape=Text(says="the path of a file"),
        doc="ssh's configuration to use instead of ~/.ssh/config.",
        example="~/lab/ssh_config",
    ),
    Field(
        name="host_keys",
        shape=Choice(words=("ask-config", "accept-new", "strict")),
        doc="Whether an unknown host key is accepted.",
        example="accept-new",
    ),
    Field(
        name="folder",
        shape=Text(says="a path on the host"),
        doc="Where nodes live on the host, instead of ~/.argosy.",
        example="/scratch/me/argosy",
    ),
    Field(
        name="labels",
        shape=MapOf(key=Text(), value=AsText(), says="a mapping of labels"),
        doc="What tasks may ask for.",
        example="{disk: nvme}",
    ),
    Field(
        name="taints",
        shape=ListOf(item=Text(), one_will_do=True),
        doc="Only tasks that tolerate them go there.",
        example="[flaky]",
    ),
    Field(
        name="domains",
        shape=ListOf(item=AsText(), one_will_do=True),
        doc="Of the topology, from the widest.",
        example="[block1, rack1]",
    ),
)
_PASSWORD: Final = Field(
    name="password", shape=AsText(nullable=True), doc="SkyPilot's: not used.", example="...", secret=True
)
_NAMED: Final = (
    Field(name="name", shape=_a_name("a name"), doc="As people call it.", example="gpu1"),
    Field(
        name="address",
        shape=_A_HOST,
        doc="A name or an address, where it differs from the name.",
        example="10.0.0.7",
        aliases=("ip",),
        also=("host", "hostname"),
    ),
)


def _file(*more: Field) -> MapOf:
    host = Table(name="hosts", fields=(*_NAMED, *_WAY, *more))
    hosts = ListOf(item=OneOf(says="a host", shapes=(_A_HOST, host)), says="a list of hosts")
    listed = Field(name="hosts", shape=hosts, doc="The hosts of the pool.", example="[gpu1, gpu2]")
    return MapOf(
        key=_a_name("the name of a pool"),
        value=Table(name="pool", fields=(listed, *_WAY, *more)),
        says="a mapping of pools",
    )


_OURS: Final = _file()
_SKY: Final = _file(_PASSWORD)


def parse_pools(text: str, *, source: str, sky: bool = False) -> tuple[list[Host], tuple[Warning_, ...]]:
    """The hosts of a file. `sky`: it is SkyPilot's, which may name passwords for sudo. Raises ArgosyError
    `spec-invalid` (all errors at once, each with file:line:column) or `spec-unreadable`."""
    findings = Findings()
    hosts: list[Host] = []
    try:
        for node in compose(text, source):
            if not isinstance(node, Pairs):
                findings.error(node.place, "a file of pools is a mapping of pools", _HINT)
                continue
            read = Reader(findings).read(node, _SKY if sky else _OURS, "pools")
            findings.raise_if_any()  # what follows from them is not worth saying
            for entry in read if isinstance(read, tuple) else ():
                assert isinstance(entry, Entry)
                hosts += _hosts_of(entry, findings)
        findings.raise_if_any()
    except ArgosyError as error:
        if error.hint == CODES[error.code].hint:  # that speaks of tasks
            error.hint = _HINT
        raise
    return hosts, findings.warnings


def _hosts_of(entry: Entry, findings: Findings) -> list[Host]:
    pool, section = str(entry.key), entry.value
    if not isinstance(section, Section) or not section.get("hosts", tuple):
        findings.error(entry.place, f"the pool `{pool}` has no hosts", "add `hosts: [gpu1, gpu2]`")
        return []
    hosts: list[Host] = []
    for item in section.get("hosts", tuple) or ():
        own = item if isinstance(item, Section) else Section(section.places["hosts"])
        text = item if isinstance(item, str) else own.get("address", str) or own.get("name", str) or ""
        place = own.places.get("address") or own.places.get("name") or own.place
        if not text:
            what = f"a host of `{pool}` has neither `name` nor `address`"
            findings.error(place, what, "add `address: gpu1`")
            continue
        user, address, port = parse_host(text)
        merged = section.without("hosts").under(own)
        host = _host(pool, own.get("name", str) or address, address, merged)
        host = msgspec.structs.replace(
            host, user=user or host.user, port=port or host.port, source=place.render()
        )
        if any(each.name == host.name for each in hosts):
            findings.error(place, f"`{host.name}` is twice in `{pool}`", "give one of them another `name`")
        hosts.append(host)
        if "password" in merged:
            findings.warn(
                merged.places["password"],
                "`password` is not used: nothing needs root on the hosts",
                "who logs in with a password runs `argosy pool add`, which installs a key",
                once="password",
            )
    return hosts


def _host(pool: str, name: str, address: str, section: Section) -> Host:
    keys = section.get("host_keys", str) or "ask-config"
    labels = [entry for entry in section.get("labels", tuple) or () if isinstance(entry, Entry)]
    return Host(
        pool=pool,
        name=name,
        address=address,
        user=section.get("user", str) or "",
        port=section.get("port", int) or 0,
        key_file=section.get("identity_file", str) or "",
        jumps=_texts(section, "jump"),
        config_file=section.get("ssh_config", str) or "",
        host_keys=msgspec.convert(keys, HostKeys),
        folder=section.get("folder", str) or "~/.argosy",
        labels=tuple((str(entry.key), str(entry.value)) for entry in labels),
        taints=_texts(section, "taints"),
        domains=_texts(section, "domains"),
    )


def _texts(section: Section, name: str) -> tuple[str, ...]:
    return tuple(str(item) for item in section.get(name, tuple) or ())


# --- all of them -----------------------------------------------------------------------------------


class PoolFiles:
    """Every place where hosts are written. `home`: the state folder; `root`: the provider's own."""

    def __init__(self, home: Path, root: Path, user_home: Path) -> None:
        self.ours = root / "pools.json"
        self._closed = root / "closed.json"
        self._theirs = ((home / FILE, False), (user_home / ".sky" / SKY_FILE, True))
        self._stamp: object = None
        self._pools = Pools()
        self.problem: ArgosyError | None = None  # a file of people cannot be read: its last hosts are kept
        self._kept: dict[Path, list[Host]] = {}

    def read(self) -> Pools:
        """All hosts; the same object until a file changes. Raises OSError for our own file."""
        paths = (self.ours, *(path for path, _ in self._theirs))
        stamp = tuple(_stamp(path) for path in paths)
        if stamp != self._stamp:
            self._pools, self._stamp = self._read(), stamp
        return self._pools

    def _read(self) -> Pools:
        hosts: dict[str, Host] = {host.id: host for host in self.written()}
        names = {host.pool for host in hosts.values()}
        warnings: list[str] = []
        self.problem = None
        for path, sky in self._theirs:
            try:
                found, said = parse_pools(path.read_text("utf-8"), source=str(path), sky=sky)
                warnings += [warning.render() for warning in said]
                self._kept[path] = found
            except FileNotFoundError:
                self._kept.pop(path, None)
            except ArgosyError as error:
                self.problem = self.problem or error
            except (OSError, UnicodeDecodeError) as error:
                self.problem = self.problem or ArgosyError(
                    "spec-unreadable", f"{path} cannot be read: {error}"
                )
            new = self._kept.get(path, ())
            for pool in sorted({host.pool for host in new} & names):
                warnings.append(f"{path}: the pool `{pool}` is there already and left out")
            hosts.update({host.id: host for host in new if host.pool not in names})
            names |= {host.pool for host in new}
        return Pools(hosts=hosts, warnings=tuple(warnings))

    def written(self) -> list[Host]:
        """What `pool add` wrote. Raises OSError."""
        try:
            return msgspec.json.decode(self.ours.read_bytes(), type=list[Host])
        except FileNotFoundError:
            return []
        except msgspec.MsgspecError as error:
            raise OSError(f"{self.ours} is damaged: {error}") from None

    def write(self, hosts: Sequence[Host]) -> None:
        _write(self.ours, msgspec.json.format(msgspec.json.encode(hosts)))
        self._stamp = None

    def closed(self) -> dict[str, Closed]:
        """Hosts that people closed, by id."""
        try:
            return msgspec.json.decode(self._closed.read_bytes(), type=dict[str, Closed])
        except (OSError, msgspec.MsgspecError):
            return {}

    def close(self, ids: Sequence[str], state: State, now_ms: int = 0) -> None:
        """`state` "": they are open again. Raises OSError."""
        closed = {id: old for id, old in self.closed().items() if id not in ids}
        if state:
            closed |= dict.fromkeys(ids, Closed(state=state, since_ms=now_ms))
        _write(self._closed, msgspec.json.encode(closed))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _write(path: Path, data: bytes) -> None:
    """All or nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.chmod(0o600)
    new.replace(path)
