"""What the server asks of a node's agent, and the stream of bytes that reaches it.

`AgentPort` is the border that tests fake: the real one (`infra.agent_client`) speaks HTTP/1.1 over a
`Channel` to the agent's unix socket; the simulated one lives in `testing`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from argosy.model.facts import LogChunk, NodeFacts, RankFact
from argosy.model.offer import DeviceShare
from argosy.model.rows import Node
from argosy.model.tree import Entry

if TYPE_CHECKING:
    import asyncio  # decisions build orders from this module: at run time it loads no event loop

#: As in `argosy.agent.shapes`.
LINK: Final = "link:"
UNTOLD: Final = -1


class Channel(Protocol):
    """A byte stream to an agent, as asyncio streams."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A rank with a lease ends by itself when its server was not heard for so long: `ms` after the report
    that the server has answered last. `sent` and `boot`: of the last report before the order."""

    boot: str  # the machine's boot, which `sent` belongs to
    sent: int
    ms: int


class AppOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An app that a rank runs in place of `run`, and how well it is kept apart from others on the node."""

    name: str = "app"
    command: str = ""  # shell text; "": nothing but terminals, ports and ssh
    listens: str = ""  # socket | port
    port: int = 0  # 0: any that is free
    ready: str = "/"
    kernels: str = ""  # a path that lists kernels of Jupyter
    program: str = ""  # that must be there
    isolation: str = "process"
    image: str = ""  # of its container, as engines call it
    network: str = ""  # none | outbound | host; "": what is usual at that level
    cpus_milli: int = 0  # so much of the processors at most, where the node can limit that; 0: what is free
    owner: str = ""  # whose it is: at level `user` each has a user id of its own
    home: str = "~"  # of its programs: `~/x` is below the node's home
    env: dict[str, str] = {}
    folder: str = ""  # with what it needs, below `argosy/apps` of the node's cache
    seed: str = ""  # a folder with the files that its home begins with: `~/x` is below the node's home


class Enter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is opened in the session that a rank runs. `app`: its own face; `port`: of its loopback;
    `shell`: a terminal, which goes on when the line is cut and is found again by `id`; `ssh`: one
    connection of who has `key`."""

    what: str  # app | port | shell | sshd
    port: int = 0
    command: str = ""
    rows: int = 24
    columns: int = 80
    id: str = ""  # of the terminal
    seen: int = -1  # bytes of its output that the reader has; -1: begin with what is still known
    acks: bool = False  # the reader says from time to time what has arrived
    watch: bool = False  # of a terminal: only look; an `id` of "" is the one that was opened last
    key: str = ""


class SecretFile(msgspec.Struct, frozen=True, kw_only=True):
    """A secret as a file, in the memory of the node only. `path`: "" its name, a name, or a whole path."""

    name: str
    path: str = ""
    value: str

    def __repr__(self) -> str:
        return f"SecretFile(name={self.name!r}, path={self.path!r})"


class RankOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one agent is told to run. `id` is `<attempt id>.<rank>`; repeating an order is harmless."""

    id: str
    job: str = ""  # an order for an older attempt of the same job than was ordered before never runs
    attempt: int = 0
    setup: str = ""  # shell text; runs once before `run`
    run: str = ""  # shell text
    env: dict[str, str] = {}  # includes secrets: kept in memory only, never written to disk
    workdir: str = "workdir"  # relative to the node's home
    devices: tuple[int, ...] = ()
    shares: tuple[
        DeviceShare, ...
    ] = ()  # how much of each device, and how it is kept apart; (): all of `devices`
    tenant: str = ""  # programs of one tenant share an MPS daemon
    cpus_milli: int = 0  # what was planned for it; nothing on the node enforces CPU amounts
    memory_bytes: int = 0  # 0: no limit
    pids_max: int = 0  # 0: no limit
    run_now: bool = False  # a gang of one needs no barrier: run as soon as it is ready
    secret_files: tuple[SecretFile, ...] = ()
    lease: Lease | None = None
    app: AppOrder | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of news from `watch`. The first batch lists every rank that the agent knows."""

    complete: bool  # `ranks` are all there are (first batch), not only those that changed
    ranks: tuple[RankFact, ...] = ()
    logs: tuple[LogChunk, ...] = ()
    node: NodeFacts | None = None  # now and then
    sent: int = 0  # by the agent's own clock, in ms; 0: an older agent, which takes no answers
    beat_s: float = 5.0  # it says something at least so often
    wall_ms: int = 0  # what the node's wall clock shows, which may be wrong; 0: an older agent


class Ack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the reader of a watch answers to a report."""

    sent: int  # of the report
    beat: float = 5.0  # say something at least so often, in seconds
    leases: tuple[str, ...] = ()  # attempts whose ranks may go on


#: What to answer to a report; None: nothing.
Answer = Callable[[Report], Ack | None]


class Duplex(Protocol):
    """An interactive byte stream (a shell, or a forwarded port)."""

    async def read(self) -> bytes:
        """Some bytes; b"" at the end."""

    async def write(self, data: bytes) -> None: ...

    async def end(self) -> None:
        """Nothing more will be written; what comes is still read."""

    async def resize(self, rows: int, columns: int) -> None: ...

    async def close(self) -> int | None:
        """Ends it; the exit code when there is one."""


class DataFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An object that becomes a file. `path` is relative to the target; `etag` "": not known."""

    path: str
    size: int
    etag: str = ""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy has besides bytes. `mode`: of files that `modes` does not name; `links`: where each
    leads."""

    mode: int
    modes: Mapping[str, int] = {}
    links: Mapping[str, str] = {}


class Reshaped(msgspec.Struct, frozen=True, array_like=True):
    """A change in a copy that is not of bytes: a link to `link`, or (when that is "") a file with another
    mode. `was`: as in `DataSink.was`."""

    path: str
    link: str
    mode: int
    was: str
    was_mode: int


class PlacedChange(msgspec.Struct, frozen=True, kw_only=True):
    """How the tree `since`, which lies at `target`, becomes the tree `digest` (`model.tree.TreeChange`)."""

    target: str
    since: str
    digest: str
    entries: tuple[Entry, ...]
    removed: tuple[str, ...]
    folders: tuple[str, ...]


class HeldTree(msgspec.Struct, frozen=True):
    """What lies where a tree is wanted. `digest`: that of the wanted tree when it was the last that was
    placed there and none of its files is gone or was replaced; else of one of which `change_tree` may make
    it, or "". `is_bare`: the node has no chunk of anything; `takes`: it knows `send_tree`."""

    digest: str = ""
    is_bare: bool = False
    takes: bool = False


#: Each chunk's digest and bytes.
Chunks = AsyncIterator[tuple[str, bytes]]
Pack = AsyncIterator[bytes]  # of chunks, as they travel


class FetchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What appears at `target`. `single`: it is one file, not a folder; `full`: what is there already comes
    again; `md5`: an ETag of 32 digits is the MD5 of the bytes; `encryption` and `key_id`: how what comes must
    be encrypted ("": as it is)."""

    target: str
    files: tuple[DataFile, ...]
    single: bool = False
    full: bool = False
    md5: bool = False
    encryption: str = ""
    key_id: str = ""
    shape: Shape | None = None  # None: modes and links are the node's


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    files: int  # that are there now
    bytes: int  # that came for it
    removed: int = 0  # files of an earlier copy that are no more
    relayed: int = 0  # bytes of those that came through the server
    why: str = ""  # why some did


class MountOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket that appears at `target`. `settings`, `door`, `fresh` and `expires_s` are those of
    `infra.buckets.MountKeys`: secrets, which are in memory only there. `options`: of rclone, as `name=value`;
    `renews`: what is mounted gets new keys, and what is not stays away."""

    target: str
    path: str
    settings: Mapping[str, str]
    options: tuple[str, ...] = ()
    cached: bool = False
    read_only: bool = False
    door: str = ""
    fresh: Mapping[str, str | int] = {}
    expires_s: float = 0.0
    renews: bool = False

    def __repr__(self) -> str:
        return f"MountOrder(target={self.target!r}, path={self.path!r})"


class SendOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What lies at `path` of the node goes to a store. `changes`: only what is not as it was fetched there;
    nothing when it was not fetched, or is mounted."""

    path: str
    changes: bool = False


class DataSink(Protocol):
    """Where files of a node go."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What a PUT says, too."""

    def was(self, path: str, etag: str, mode: int) -> None:
        """Of changes: what this file was when it was fetched; "": it is new, `link:TARGET`: a link. `mode`:
        which it has now, -1: as it was told. Said before all else."""

    def reshaped(self, change: Reshaped) -> None:
        """Of changes: said after files have come. Blocks: called in a thread."""

    def removed(self, path: str, etag: str) -> None:
        """Of changes: a file that was fetched is no more. Said after all else. Blocks: called in a thread."""

    def wants(self, path: str, size: int) -> bool:
        """Whether this file is to be sent; `path` "": what was asked for is itself a file."""

    def address(self, path: str, size: int) -> str:
        """A URL that the node may PUT for a while; "": none. Blocks: called in a thread."""

    def write(self, path: str, size: int, pieces: Iterator[bytes]) -> None:
        """Take the bytes. Blocks: called in a thread. Raises what the store raises."""

    def sent(self, path: str, size: int) -> None:
        """All of it is in the store."""


class DataSource(Protocol):
    """Where the bytes of an order come from; indices are those of `FetchOrder.files`."""

    def address(self, index: int) -> str:
        """A URL that the node may GET for a while; "": it cannot reach the store. Blocks: called in a
        thread."""

    def read(self, index: int, first: int) -> Iterator[bytes]:
        """Its bytes from `first` on. Blocks: called in a thread. Raises what the store raises."""

    def told(self, files: int, done_bytes: int, total_files: int, total_bytes: int) -> None:
        """How far it is: what was missing on the node."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a program keeps in a folder: entries of a tree, and paths of files that may be half written."""

    entries: tuple[Entry, ...] = ()
    unsettled: tuple[str, ...] = ()


class AgentPort(Protocol):
    """One node's agent. Every method raises `border.Unreachable` when it does not answer."""

    async def node(self) -> NodeFacts: ...

    async def prepare(self, orders: Sequence[RankOrder]) -> None:
        """Place and set up ranks; known ids are left alone. Their progress comes through `watch`."""

    async def run(self, rank_ids: Sequence[str]) -> None:
        """Start prepared ranks; running and exited ones are left alone."""

    async def stop(self, rank_ids: Sequence[str], grace_s: float, why: str = "") -> None:
        """SIGTERM to the whole of each rank, after `grace_s` SIGKILL. `why` (a `Reason`) is left for hooks in
        the rank's folder. A rank not yet running exits with 143;
        so does one that is not known, and an order for it which arrives later never runs."""

    async def forget(self, rank_ids: Sequence[str]) -> None:
        """Drop exited ranks and their logs: the server has both. Unknown ids are fine. A forgotten id is left
        alone by later calls of `prepare`: a second server's late repeat must not run a finished rank
        again."""

    async def listening(self, rank_ids: Sequence[str]) -> Sequence[int]:
        """TCP ports on which processes of these ranks listen now; of ranks that are not known none."""

    def watch(
        self, cursors: Mapping[str, int], answer: Answer = lambda report: None
    ) -> AsyncIterator[Report]:
        """News until closed: at once everything known, then changes as they happen; log bytes of each rank
        from `cursors[rank id]` (default 0) on. A batch holds at most 1 MiB of log bytes; the reader's pace is
        the writer's pace. The agent sends an empty batch every 5 s, or as often as `answer` asks for; raises
        `border.Silent` when nothing comes for `silence_s` of that."""

    async def missing_chunks(self, digests: Sequence[str]) -> Sequence[str]: ...

    async def put_chunks(self, chunks: Chunks) -> None: ...

    async def held_tree(self, target: str, digest: str) -> HeldTree:
        """What lies at `target`, where this tree is wanted."""

    async def look_ahead(self, target: str) -> None:
        """A change of the tree there may follow: the node looks meanwhile at what it has."""

    async def change_tree(self, change: PlacedChange, chunks: Sequence[tuple[str, bytes]]) -> bool:
        """Make another tree of the one that lies at a target. False, and nothing is done, when something else
        lies there, or not all of it any more. `chunks` are those that the node may lack. Raises as
        `place_tree`, and `Transient` when a chunk is missing."""

    async def place_tree(self, tree_json: bytes, target: str, digest: str = "") -> None:
        """Make the tree appear at `target` (`~/x`, absolute, or relative to the node's home). What an earlier
        tree put there and this one lacks is removed unless somebody changed it; other files stay. Raises
        `RequestRefused` for a target that is not allowed."""

    async def send_tree(
        self, tree_json: bytes, target: str, digest: str, chunks: Mapping[str, int], packed: Pack
    ) -> None:
        """As `put_chunks` and `place_tree` in one, where `held_tree` says that it can be: files are written
        while others are under way. `chunks`: those that are missing there, with their sizes, in the order of
        `needed_chunks`; `packed`: they as a pack. Raises as `place_tree`, `Transient` when others are
        missing, and `RequestRefused("chunks")` when they are not what they are called."""

    async def kept(self, target: str, settled_s: float) -> Kept:
        """What lies in a folder below the node's home; nothing where it is not. Files that changed less than
        `settled_s` ago may be half written: only their paths are told."""

    def kept_chunks(self, digests: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        """Chunks of what `kept` told last. Raises `Transient` when a file has changed since."""

    def expecting(self, target: str) -> AbstractAsyncContextManager[None]:
        """A copy to `target` follows in this context: the node looks meanwhile at what lies there. It raises
        nothing by itself."""

    async def fetch(self, order: FetchOrder, source: DataSource) -> Fetched:
        """Make objects appear as files. Only what is not there travels: by addresses that the node gets
        itself, else through this connection. Files of an earlier copy at this target that the order lacks
        are removed, unless somebody changed them. Repeating it goes on where it was. Raises
        `RequestRefused` for a target that is not allowed and a disk that is too small, and what the source
        raises."""

    async def mount(self, order: MountOrder) -> bool:
        """Make a bucket appear as a folder; the same again brings new keys to it. Whether these keys are in
        use: a tool that must be started anew for them is not while somebody is in the folder. Raises
        `RequestRefused`, of the field `fuse` where the node cannot mount anything."""

    async def settle(
        self, targets: Sequence[str], patience_s: float, *, unmount: bool
    ) -> Mapping[str, Sequence[str]]:
        """Wait until all that was written to these mounts is in their stores, and unmount them if wanted. It
        waits as long as something arrives, and `patience_s` after that. By target: files that did not
        get there."""

    async def lend(self, target: str) -> Duplex:
        """One connection of the tool that mounts at `target`, to what its order's door `link` promises. The
        first line that it says is JSON with the `token` that the tool will say; the rest comes when the tool
        connects. Raises `RequestRefused` where nothing is mounted, after a while."""

    async def send(self, order: SendOrder, sink: DataSink) -> int:
        """Give files to a store, by addresses that the node puts itself, else through this connection; how
        many lie there (0 also where nothing is). A file that changes while it is read is sent again; raises
        `Transient` when it goes on changing, `RequestRefused` for a path that is not the task's, and what
        the sink raises."""

    async def shell(self, command: str, rows: int, columns: int, env: Mapping[str, str]) -> Duplex:
        """A terminal on the node: a login shell when `command` is empty."""

    async def forward(self, port: int) -> Duplex:
        """A connection to a port on the node's loopback."""

    async def ssh(self, public_key: str) -> Duplex:
        """An ssh server for one connection of who has this key. The first line that it says is JSON with its
        `host_key`. Raises `RequestRefused` where the node has no sshd."""

    async def enter(self, rank_id: str, enter: Enter) -> Duplex:
        """A stream into the session that a rank runs. A terminal's is one of `shell`; the first that it
        says is a line {"id", "from"}: how it is found again, and which byte of its output comes next.
        Raises `RequestRefused`, and `Transient` while it cannot be entered."""

    async def copy(self, path: str, name: str, *, read: bool) -> Duplex:
        """A tar stream of a file or folder (`argosy.agent.copying`). Raises `RequestRefused`."""

    async def shutdown(self) -> None:
        """End all ranks and the agent."""

    async def close(self) -> None:
        """Drop the connection; the agent and its ranks go on."""


def silence_s(beat_s: float) -> float:
    """How long an agent that says something every `beat_s` may say nothing: three times that, but 5 s.

    >>> silence_s(1.5), silence_s(5.0)
    (5.0, 15.0)
    """
    return max(5.0, 3 * beat_s)


class DialOrder(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent reaches this server. The token is a secret."""

    url: str
    node: str
    token: str
    ca: str = ""  # certificates (PEM) to trust beside the machine's own

    def __repr__(self) -> str:
        return f"DialOrder(url={self.url!r}, node={self.node!r})"


class DialIn(Protocol):
    """Nodes that keep a connection to this server, by the names that they were given."""

    @property
    def is_offered(self) -> bool:
        """Whether nodes can be told to dial in: they need an address of this server."""

    def order(self, node: str) -> DialOrder:
        """For an agent that is about to be started as `node`. Raises `RequestRefused`, with the setting that
        is missing."""

    def has(self, node: str) -> bool: ...

    def open(self, node: str) -> Channel:
        """A stream to the agent of a node that is connected. Raises `Unreachable`."""


class AgentDirectory(Protocol):
    """Connections to agents, by node."""

    async def get(self, node: Node) -> AgentPort:
        """The agent of `node`; connects when first asked. Raises `border.Unreachable`."""

    def drop(self, node_id: str) -> None:
        """Forget the connection: the next `get` makes a new one."""
