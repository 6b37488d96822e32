"""Apps of sessions, from outside: laid out in a sandbox, watched until they answer, and entered.

Each has a folder for its sockets, owner only, whose path is short and follows from the rank's key, so that
the next agent finds it. `inside` serves there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shlex
import sys
import time

from argosy.agent import nat, sandbox
from argosy.agent.addresses import socket_address
from argosy.agent.joining import join
from argosy.agent.orders import Busy, Refused
from argosy.agent.programs import find
from argosy.agent.rank import RUNNING, Rank, now_ms, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Set, Tuple

    from argosy.agent.node import Node
    from argosy.agent.orders import AppOrder, Order
    from argosy.agent.supervision import Supervision

    Streams = Tuple[asyncio.StreamReader, asyncio.StreamWriter]

_FIRST_LOOK_S, _LOOK_MAX_S = 0.01, 0.25  # until the app answers
_SOON_S, _SOON_LOOK_S = 10.0, 0.04  # in the first seconds somebody waits: look more often
_NAT = "nat-"  # files of the programs that carry packets of sessions, by rank
_HOMES = "app-homes"  # a link for each rank with an app, to where its files lie
_ANSWER_S = 5.0
_ANSWER_BYTES = 1 << 20


class Apps:
    """The apps of one node."""

    def __init__(self, shared: Supervision, node: Node) -> None:
        self._shared, self._node = shared, node
        self._attended: Set[str] = set()

    # ---- before it starts

    def lay_out(self, rank: Rank, order: Order) -> str:
        """What the rank runs. Raises OSError, Refused for a level that this node cannot give."""
        app = order["app"]
        assert app is not None
        level = app["isolation"]
        good, gaps = self._node.levels()
        if level not in good:
            why = gaps.get(level, "there is no such level")
            text = "isolation `%s` is not to be had on %s: %s; it can give %s"
            raise Refused("isolation", text % (level, self._node.name, why, ", ".join(good)))
        lacking = "" if level == "container" else _lacking(app["program"])
        if lacking:
            raise Refused("program", "the program `%s` is not installed on %s" % (lacking, self._node.name))
        home = self._path(app["home"])
        os.makedirs(home, mode=0o700, exist_ok=True)
        self._note_home(rank, home)
        alone = level in sandbox.WALLED
        check_network(level, app["network"], self._node.name)
        sockets = self._make_folder(rank, alone)
        tools = self._tools(rank, app["folder"])
        inner = dict(app, home=sandbox.HOME if alone else home, shell=self._shared.shell, alone=alone)
        inner["has_outlet"] = alone and app["network"] in ("", "outbound")
        if level == "sandbox-lite":
            own = home + "/.argosy/tmp"
            os.makedirs(own, mode=0o700, exist_ok=True)
            inner["env"] = dict(app["env"], TMPDIR=own)
            inner["readable"] = [*sandbox.readable(), *tools]
            inner["writable"] = ["/dev"]
        if level == "container":
            inner["told"] = True
        if app["network"] == "nat":
            inner["nat"] = True
            sandbox.write_resolver(sockets, nat.DNS)
        self._write_order(sockets, inner)
        # Whoever is told to end is `inside`, which tells the app; what carries it must not go first.
        seed = _seed_text(self._path(app["seed"]), home) if app["seed"] else ""
        argv = self._walls(rank, order, sockets, home, tools)
        return seed + "trap '' TERM HUP INT\nexec %s\n" % " ".join(map(shlex.quote, argv))

    def _walls(self, rank: Rank, order: Order, sockets: str, home: str, tools: List[str]) -> List[str]:
        """What starts `inside`. Raises OSError, Refused."""
        app, agent = order["app"], os.path.abspath(sys.argv[0])
        assert app is not None
        chosen = [self._node.device(index) for index in order["devices"]]
        devices = [device for device in chosen if device is not None]
        if app["isolation"] == "container":
            from argosy.agent import containers

            limits = order["memory_bytes"], app["cpus_milli"], order["pids_max"]
            image = containers.checked_image(app["image"])
            given = containers.Given(agent, sockets, home, devices, *limits)
            engine = containers.command(containers.engine(), image, self._shared.key(rank), given)
            return containers.becoming(agent, engine)
        if app["isolation"] not in sandbox.WALLED:
            return [sys.executable, "-I", "-S", agent, "inside", sockets]
        name = "session"
        sandbox.write_names(sockets, name)
        uid = sandbox.id_of(app["owner"]) if app["isolation"] == "user" else 0
        files = sandbox.device_files(devices)
        return sandbox.command(agent, sockets, home, name, files, tools, uid)

    def _path(self, text: str) -> str:
        return self._shared.home + text[1:] if text.startswith("~") else text

    def _note_home(self, rank: Rank, home: str) -> None:
        """The next agent finds it, and nobody inside sees it. Raises OSError."""
        folder = "%s/%s" % (self._shared.root, _HOMES)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.path.lexists(folder + "/" + rank.id):
            os.unlink(folder + "/" + rank.id)
        os.symlink(home, folder + "/" + rank.id)

    def home_of(self, rank_id: str) -> str:
        """Where the files of an app that runs here lie. Raises Refused."""
        rank = self._shared.by_id.get(rank_id)
        try:
            if rank is None:
                raise FileNotFoundError
            return os.readlink("%s/%s/%s" % (self._shared.root, _HOMES, rank.id))
        except OSError:
            raise Refused("rank", "no app runs as %r on %s" % (rank_id, self._node.name)) from None

    def _tools(self, rank: Rank, folder: str) -> List[str]:
        """Folders with programs that it may use; what was installed for the app comes first on its PATH."""
        found = [os.path.dirname(self._shared.home) + "/venv"]
        if folder:
            made = "%s/argosy/apps/%s" % (rank.env["XDG_CACHE_HOME"], folder)
            rank.env["PATH"] = made + "/bin:" + rank.env["PATH"]
            found.append(made)
        return found

    def _make_folder(self, rank: Rank, alone: bool) -> str:
        """Empty, and nobody else's. Raises OSError."""
        folder = self._own_folder(rank) if alone else self._short_folder(rank)
        base = os.path.dirname(folder)
        os.makedirs(base, mode=0o700, exist_ok=True)
        info = os.lstat(base)
        if info.st_uid != os.geteuid() or info.st_mode & 0o077 or os.path.islink(base):
            raise OSError(1, "%s belongs to somebody else, or others may enter it" % base)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name in os.listdir(folder):
            os.unlink(folder + "/" + name)
        return folder

    def _nat_file(self, rank: Rank) -> str:
        return "%s/%s%s" % (self._shared.root, _NAT, rank.id)

    def sweep(self) -> None:
        """End what carries packets of sessions that ended while no agent was there."""
        for name in os.listdir(self._shared.root):
            rank = self._shared.by_id.get(name[len(_NAT) :]) if name.startswith(_NAT) else None
            if name.startswith(_NAT) and (rank is None or rank.ended):
                nat.end(self._shared.root + "/" + name)

    def _folder(self, rank: Rank) -> str:
        own = self._own_folder(rank)
        return own if os.path.isdir(own) else self._short_folder(rank)

    def _own_folder(self, rank: Rank) -> str:
        """Of one in a sandbox, where it has another name."""
        return "%s/apps/%s" % (self._shared.root, rank.id)

    def _short_folder(self, rank: Rank) -> str:
        """Of one whose app sees the path as it is: an address of a socket holds 107 bytes."""
        base = "/run/user/%d" % os.geteuid()
        base = base if os.access(base, os.W_OK) else "/tmp"
        digest = hashlib.sha256(self._shared.key(rank).encode()).hexdigest()[:16]
        return "%s/argosy-apps-%d/%s" % (base, os.geteuid(), digest)

    def _write_order(self, sockets: str, inner: Dict[str, object]) -> None:
        path = sockets + "/order.json"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(inner, file)

    def _order_of(self, rank: Rank) -> Dict[str, object] | None:
        """As it was laid out, perhaps by an earlier agent; None for a rank without an app."""
        try:
            with open(self._folder(rank) + "/order.json", encoding="utf-8") as file:
                return dict(json.load(file))
        except (OSError, ValueError):
            return None

    async def _connect(self, rank: Rank, name: str) -> Streams:
        """Raises OSError."""
        address, handle = socket_address(self._folder(rank) + "/" + name)
        try:
            return await asyncio.open_unix_connection(address)
        finally:
            if handle is not None:
                os.close(handle)

    def clean(self, rank: Rank) -> None:
        """Its sockets go with it."""
        try:
            os.unlink("%s/%s/%s" % (self._shared.root, _HOMES, rank.id))
        except OSError:
            pass  # of an earlier version
        folder = self._folder(rank)
        nat.end(self._nat_file(rank))
        if (self._order_of(rank) or {}).get("told"):
            from argosy.agent import containers

            self._shared.loop.run_in_executor(None, containers.remove, self._shared.key(rank))
        if os.path.isdir(folder):
            self._shared.erase(folder)

    # ---- while it runs

    def attend(self, rank: Rank) -> None:
        """Look after the app of a rank that runs; nothing happens for one that has none."""
        if rank.id not in self._attended and os.path.exists(self._folder(rank) + "/order.json"):
            self._attended.add(rank.id)
            self._shared.start_task(self._attend(rank))

    async def _attend(self, rank: Rank) -> None:
        outlet = None
        try:
            order = self._order_of(rank) or {}
            if order.get("has_outlet"):
                from argosy.agent.outlet import Outlet

                outlet = Outlet()
                try:
                    await outlet.open(self._folder(rank))
                except OSError as error:
                    warn("%s has no way out: %s" % (rank.id, error.strerror))
            look_s, begun_s = _FIRST_LOOK_S, time.monotonic()
            has_network = not order.get("nat")
            while not rank.ended:
                if not has_network:
                    has_network = await self._begin_nat(rank)
                if has_network and rank.phase == RUNNING and await self._answers(rank, order):
                    rank.ready_ms = now_ms()
                    self._shared.changed(rank)
                    break
                await asyncio.sleep(look_s)
                most_s = _SOON_LOOK_S if time.monotonic() - begun_s < _SOON_S else _LOOK_MAX_S
                look_s = min(most_s, look_s * 1.2)
            from argosy.agent.activity import Activity

            await Activity(self._shared, self._node, self._ask, self._get).watch(rank, order)
        finally:
            if outlet is not None:
                outlet.close()
            self._attended.discard(rank.id)
            self.clean(rank)

    async def _begin_nat(self, rank: Rank) -> bool:
        """Give it its way out, once its programs can be reached; whether they can."""
        if await self._ask(rank, "status") is None:
            return False
        begin = self._shared.loop.run_in_executor
        await begin(None, nat.begin, self._folder(rank), self._nat_file(rank))
        return True

    async def _answers(self, rank: Rank, order: Dict[str, object]) -> bool:
        """Whether the app can be used."""
        if not order.get("listens") or not order.get("ready"):
            return await self._ask(rank, "status") is not None
        status, _ = await self._get(rank, str(order["ready"]))
        return 0 < status < 500

    # ---- who comes in

    async def enter(self, arguments: Dict[str, object], streams: Streams, upgraded: bytes) -> None:
        """Carry one connection into a session. Raises Refused, Busy."""
        rank = self._shared.by_id.get(str(arguments.get("rank")))
        asked = arguments.get("enter")
        if rank is None or not isinstance(asked, dict):
            raise Refused("rank", "there is no session %r on %s" % (arguments.get("rank"), self._node.name))
        if rank.ended or rank.phase != RUNNING:
            raise Busy("the session is %s on %s" % (rank.phase, self._node.name))
        first, other = await self._open(rank, asked)
        streams[1].write(upgraded + first)
        await join(streams, other)

    async def _open(self, rank: Rank, asked: Dict[str, object]) -> Tuple[bytes, Streams]:
        """A connection and what it says first: of a terminal and of ssh a line of JSON. Raises Busy, and
        Refused for what cannot be opened however often it is tried."""
        folder = self._folder(rank)
        try:
            if asked.get("what") == "app" and os.path.exists(folder + "/app.sock"):
                return b"", await self._connect(rank, "app.sock")
            streams = await self._connect(rank, "in.sock")
        except OSError as error:
            raise Busy("the session does not answer: %s" % error.strerror) from None
        streams[1].write(json.dumps(asked).encode() + b"\n")
        line = await streams[0].readline()
        try:
            said = json.loads(line)
        except ValueError:
            said = {"error": "it closed the connection"}
        if "error" in said:
            streams[1].close()
            if said.get("refused"):
                raise Refused("enter", str(said["error"]))
            raise Busy(str(said["error"]))
        return (line if asked.get("what") == "shell" else b""), streams

    async def _ask(self, rank: Rank, what: str) -> Dict[str, object] | None:
        """What `inside` says; None when it does not answer."""
        try:
            reader, writer = await self._connect(rank, "in.sock")
        except OSError:
            return None
        try:
            writer.write(json.dumps({"what": what}).encode() + b"\n")
            return dict(json.loads(await asyncio.wait_for(reader.readline(), _ANSWER_S)))
        except (OSError, ValueError, asyncio.TimeoutError):
            return None
        finally:
            writer.close()

    async def _get(self, rank: Rank, path: str) -> Tuple[int, bytes]:
        """Status and body of what the app answers; (0, b"") when it does not."""
        try:
            _, (reader, writer) = await self._open(rank, {"what": "app"})
        except (Busy, Refused):
            return 0, b""
        try:
            writer.write(("GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n" % path).encode())
            data = await asyncio.wait_for(_read_all(reader), _ANSWER_S)
        except (OSError, asyncio.TimeoutError):
            return 0, b""
        finally:
            writer.close()
        words = data[:64].split(b" ", 2)
        status = int(words[1]) if len(words) > 1 and words[1][:3].isdigit() else 0
        return status, data.partition(b"\r\n\r\n")[2]


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    data = b""
    while len(data) < _ANSWER_BYTES:
        piece = await reader.read(65536)
        if not piece:
            break
        data += piece
    return data


def _seed_text(seed: str, home: str) -> str:
    """Shell text that copies the files which a home begins with, once."""
    words = {"seed": shlex.quote(seed), "home": shlex.quote(home)}
    return (
        "if [ ! -e %(home)s/.argosy/begun ]; then\n"
        "cp -a %(seed)s/. %(home)s/ && mkdir -p %(home)s/.argosy && : > %(home)s/.argosy/begun || exit 1\n"
        "fi\n"
    ) % words


def _lacking(programs: str) -> str:
    """What is not there of "one | two three", where one is enough, and so are two and three together.

    >>> _lacking("sh"), _lacking("no-such | sh env"), _lacking("no-such | sh neither")
    ('', '', 'no-such | sh neither')
    """
    ways = [way.split() for way in programs.split("|")]
    return "" if any(all(find(each) for each in way) for way in ways) else programs


def check_network(level: str, network: str, name: str) -> None:
    """Raises Refused for a network that a level cannot have on the node `name`."""
    text, alone = "", level in sandbox.WALLED
    if network == "host" and alone:
        text = (
            "at level `%s`: nothing there reaches %s itself; ask for `outbound`, or for isolation `process`"
        )
        text %= (level, name)
    elif network in ("none", "outbound") and not alone:
        text = "at level `%s`, which shares the network of %s; ask for isolation `sandbox`" % (level, name)
    elif network == "nat" and level != "sandbox":
        text = "at level `%s`; ask for isolation `sandbox`" % level
    elif network == "nat" and nat.why_not():
        text = "on %s: %s; `outbound` goes through a proxy there" % (name, nat.why_not())
    if text:
        raise Refused("network", "network `%s` is not to be had %s" % (network, text))


def checked(given: object) -> AppOrder:
    """An AppOrder, filled in. Raises Refused."""
    found = given if isinstance(given, dict) else {}

    def text(name: str, default: str = "") -> str:
        value = found.get(name, default)
        if not isinstance(value, str) or "\0" in value:
            raise Refused("app", "`%s` of an app must be text" % name)
        return value

    port, env, cpus_milli = found.get("port", 0), found.get("env", {}), found.get("cpus_milli", 0)
    if not isinstance(cpus_milli, int) or cpus_milli < 0:
        raise Refused("app", "`cpus_milli` of an app must be a number, 0 or more")
    if not isinstance(port, int) or not 0 <= port < 65536:
        raise Refused("app", "`port` of an app must be 0 to 65535")
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise Refused("app", "`env` of an app must be an object of texts")
    if not text("folder").replace("-", "").isalnum() and text("folder"):
        raise Refused("app", "`folder` of an app is a name")
    if text("listens") not in ("", "socket", "port"):
        raise Refused("app", "`listens` of an app is socket or port, or empty")
    network = text("network")
    if network not in ("", "none", "outbound", "nat", "host"):
        raise Refused("app", "`network` of an app is none, outbound, nat or host, or empty")
    return {
        "name": text("name", "app"),
        "command": text("command"),
        "listens": text("listens"),
        "port": port,
        "ready": text("ready", "/"),
        "kernels": text("kernels"),
        "program": text("program"),
        "isolation": text("isolation", "process"),
        "image": text("image"),
        "home": text("home", "~"),
        "env": env,
        "folder": text("folder"),
        "seed": text("seed"),
        "network": network,
        "owner": text("owner"),
        "cpus_milli": cpus_milli,
    }
