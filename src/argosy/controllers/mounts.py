"""Objects of stores become files of a task, before it is set up on a node: listed here, fetched there.

A listing is made once for an attempt, so that all of its nodes have the same files. Credentials stay here:
nodes get addresses of single objects that are good for a while, or the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

from argosy.controllers.folder_links import FolderCopies, FolderLinks, Mounted
from argosy.controllers.mount_keys import KeyRenewals
from argosy.controllers.mount_kinds import MountKinds, OfFolder, OfStore
from argosy.infra.agent_port import (
    AgentDirectory,
    AgentPort,
    DataFile,
    Fetched,
    FetchOrder,
    MountOrder,
    Reshaped,
    SendOrder,
    Shape,
)
from argosy.infra.border import RequestRefused, Transient
from argosy.infra.bucket_entries import entries
from argosy.infra.buckets import (
    Bucket,
    BucketError,
    ChangedMeanwhile,
    Extra,
    GivesKeys,
    MountKeys,
    ObjectMissing,
    OpensBuckets,
    OpensDoor,
    StoreBusy,
)
from argosy.model.addresses import is_loopback
from argosy.model.ids import Clock
from argosy.model.kinds import kind_of, task_of
from argosy.model.kinds.job import job_label
from argosy.model.mounts import (
    MountEncryption,
    extra_of,
    in_workdir,
    is_mounted,
    is_written,
    overlap,
    storage_of,
    url_of,
)
from argosy.model.patterns import travels
from argosy.model.phases import Outcome
from argosy.model.rows import Attempt, Event, Node, Workload
from argosy.model.syncing import Rules, not_on_disk, same_objects, steps
from argosy.model.task import StorageMount, SyncRules, Task
from argosy.model.units import many, render_bytes
from argosy.store import Store

FILES_MAX: Final = 1_000_000  # of one copy
_SIGNED_S: Final = 3600
_TELL_S: Final = 15.0
_LISTINGS_MAX: Final = 8  # of attempts, kept for their other nodes
_PATIENCE_S: Final = 300.0  # so long a store may take nothing before the end of a job gives it up
_HURRY_S: Final = 20.0
_SENT_MAX: Final = 100  # paths of attempts, whose sending may have to be repeated
_ENCRYPTS: Final = "x-amz-server-side-encryption"  # stores that say how an object is encrypted
_LISTEN: Final = "start the server with `--s3 HOST:PORT` at an address that they reach"
_PUT_MAX_BYTES: Final = 4 << 30  # larger ones go through the server, in parts


class Listing(NamedTuple):
    """What a mount holds now. `keys` are those of `files`."""

    bucket: Bucket
    files: tuple[DataFile, ...]
    keys: tuple[str, ...]
    single: bool
    shape: Shape | None = None


class Mounts:
    """Of one server. `stores`: object stores as the settings say now; None: there are none here."""

    def __init__(
        self, store: Store, clock: Clock, stores: Callable[[], OpensBuckets] | None, agents: AgentDirectory
    ) -> None:
        self._store, self._clock = store, clock
        self.copies = FolderCopies(store, self._say)
        links = FolderLinks(agents, self.copies.served)
        self._kinds = MountKinds(OfStore(stores), OfFolder(self.copies, links))
        self.renewals = KeyRenewals(agents, clock, self._renewing, self._say, self._kinds, links.close)
        self._listings: dict[tuple[str, str], asyncio.Task[Listing]] = {}  # by attempt and target
        self._sent: dict[tuple[str, str], set[str]] = {}  # by attempt and path: files that are in the store
        self._working: dict[str, set[asyncio.Task[None]]] = {}  # by attempt

    async def place(self, agent: AgentPort, attempt: Attempt, job: Workload, node: Node) -> None:
        """All storage of its task is on the node. Raises a border error; `Transient` when it was told to
        stop meanwhile."""
        task = task_of(job)
        if task is None or not storage_of(task):
            return
        working = asyncio.ensure_future(self._place_all(agent, attempt, job, node, task))
        mine = self._working.setdefault(attempt.id, set())
        mine.add(working)
        try:
            await asyncio.wait({working})
            if working.cancelled():
                raise Transient("its data is not copied any further: the job is to end")
            working.result()
        finally:
            working.cancel()
            mine.discard(working)
            if not mine:
                self._working.pop(attempt.id, None)

    async def settle(self, agents: Sequence[AgentPort], attempt: Attempt, job: Workload) -> None:
        """What its ended ranks have written is in its stores. Of one path on several nodes the lowest rank's
        counts. Raises a border error."""
        task = task_of(job)
        assert task is not None
        is_going = attempt.outcome is Outcome.PREEMPTED  # it goes on elsewhere; there is little time
        for mount in storage_of(task):
            for index, agent in enumerate(agents):
                with store_errors(mount.target):
                    await self._kinds.of(mount).bring_back(agent, job, index, mount)
        await self._flush(agents, job, task, _HURRY_S if is_going else _PATIENCE_S)
        for each in task.returns if not is_going else ():
            done = self._sent.setdefault((attempt.id, each.path), set())
            count, size = 0, 0
            with store_errors(each.path):
                for agent in agents:
                    opened = self.opened(StorageMount(target=each.path, sources=(each.url,)))
                    sink = _Sink(opened, each.path.rpartition("/")[2], done)
                    count += await agent.send(SendOrder(path=in_workdir(each.path)), sink)
                    size += sink.bytes
            came = f"{render_bytes(size)} of {each.path} went to {each.url}"
            await self._say(job, came if count else f"nothing lies at {each.path}: {each.url} got nothing")
            while len(self._sent) > _SENT_MAX:
                del self._sent[next(iter(self._sent))]

    async def _flush(self, agents: Sequence[AgentPort], job: Workload, task: Task, patience_s: float) -> None:
        """Raises RequestRefused with what is not in its store."""
        written = {in_workdir(mount.target): mount for mount in storage_of(task) if is_written(mount)}
        if not written:
            return
        for index, agent in enumerate(agents):
            left = await agent.settle(tuple(written), patience_s, unmount=job.host_id is None)
            for target, paths in left.items():
                mount = written[target]
                names = ", ".join(f"`{path}`" for path in paths[:5]) + (" and more" if len(paths) > 5 else "")
                fix = self._kinds.of(mount).look.format(name=mount.name)
                raise RequestRefused(
                    "storage",
                    f"`{mount.target}`: {many(len(paths), 'file')} did not get from node {index} to "
                    f"{url_of(mount)}: {names}; {fix}",
                )

    def abandon(self, attempt_id: str) -> None:
        """What is copied for an attempt that is to end is left where it is."""
        for working in self._working.get(attempt_id, ()):
            working.cancel()

    async def _place_all(
        self, agent: AgentPort, attempt: Attempt, job: Workload, node: Node, task: Task
    ) -> None:
        for mount in storage_of(task):
            try:
                with store_errors(mount.target):
                    if is_mounted(mount) and await self._mounts(agent, job, node, mount):
                        continue
                    if not await self._kinds.of(mount).is_free(agent, job, node, mount):
                        continue
                    async with agent.expecting(in_workdir(mount.target)):
                        listing = await self._listing(attempt.id, mount, task.sync)
                        await self._fetch(agent, job, node, mount, listing, task.sync)
            except Transient:
                self._listings.pop((attempt.id, mount.target), None)  # it may have changed
                raise

    async def _mounts(self, agent: AgentPort, job: Workload, node: Node, mount: StorageMount) -> bool:
        """Mount it; False: it is to be copied, because this node or its store cannot, and it may be."""
        what, kind = Mounted(job, node, mount), self._kinds.of(mount)
        kind.hold(what)
        try:
            order, keys = await self._order(what)
            await agent.mount(order)
        except RequestRefused as error:
            kind.drop((node.id, mount.target))
            if error.field != "fuse":
                raise
            await self._say(job, kind.copied(mount, error))
            return False
        self.renewals.note(what, keys)
        if not keys.scoped:
            url = url_of(mount)
            await self._say(job, f"nodes mount {url} with the server's own credentials: {keys.why}")
        await self._warn_of_others(job, mount)
        return True

    async def _renewing(self, what: Mounted) -> tuple[MountOrder, MountKeys]:
        return await self._order(what, renews=True)

    async def _order(self, what: Mounted, *, renews: bool = False) -> tuple[MountOrder, MountKeys]:
        """With keys made now. Raises `BucketError`, and RequestRefused of the field `fuse`."""
        mount = what.mount
        bucket, key = self.opened(mount)
        is_here = what.node.ip.startswith("127.")
        if bucket.traits.opens:
            if not is_here:
                raise RequestRefused("fuse", f"{bucket.url} has no address for other machines; {_LISTEN}")
            bucket = await cast(OpensDoor, bucket).with_door()
        if not bucket.traits.mounts:
            raise RequestRefused("fuse", f"{bucket.url} is no store that nodes can mount")
        read_only = not is_written(mount)
        keys = await asyncio.to_thread(cast(GivesKeys, bucket).mount_keys, key, writes=not read_only)
        endpoint = keys.settings.get("endpoint", "")
        if endpoint and not is_here and not _reachable(endpoint):
            raise RequestRefused("fuse", f"{bucket.url} is at {endpoint}, which other machines do not reach")
        order = MountOrder(
            target=in_workdir(mount.target),
            path=keys.path,
            settings=keys.settings,
            options=self._kinds.of(mount).options(mount),
            cached=mount.mode == "MOUNT_CACHED",
            read_only=read_only,
            door=keys.door,
            fresh=keys.fresh,
            expires_s=keys.expires_s,
            renews=renews,
        )
        return order, keys

    async def _warn_of_others(self, job: Workload, mount: StorageMount) -> None:
        """Nobody keeps two jobs apart that write to one bucket."""
        if not is_written(mount):
            return
        url, place = url_of(mount), self._kinds.of(mount).place(mount)
        for other in (await self._store.snapshot()).workloads.values():
            task = task_of(other) if other.id != job.id and kind_of(other).runs else None
            mounts = storage_of(task) if task is not None else ()
            if any(is_written(each) and overlap(place, self._kinds.of(each).place(each)) for each in mounts):
                who = f"job {job_label(other)} also writes to {url}"
                await self._say(job, f"{who}: of two writes of one file the later one stays")
                return

    async def _listing(self, attempt_id: str, mount: StorageMount, rules: SyncRules) -> Listing:
        key = (attempt_id, mount.target)
        known = self._listings.get(key)
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            known = asyncio.ensure_future(asyncio.to_thread(self.listed, mount, rules))
            self._listings[key] = known
            while len(self._listings) > _LISTINGS_MAX:
                del self._listings[next(iter(self._listings))]
        return await asyncio.shield(known)

    def listed(self, mount: StorageMount, rules: SyncRules, most: int = FILES_MAX) -> Listing:
        """Blocks. Raises `BucketError`, and RequestRefused for what cannot be files."""
        opened = self.opened(mount)
        bucket, prefix = opened
        if prefix and not prefix.endswith("/"):
            with contextlib.suppress(ObjectMissing):
                head = bucket.head(prefix)
                name = prefix.rpartition("/")[2]
                return Listing(bucket, (DataFile(name, head.size, head.etag),), (prefix,), True)
            prefix += "/"
        if there := extra_of(mount).unless_at:
            return self._lacking(bucket, prefix, there, rules)
        files, keys, after = [], [], ""
        while True:
            page = bucket.page(prefix=prefix, after=after)
            for each in page.objects:
                path = each.key[len(prefix) :]
                if not path or path.endswith("/") or not travels(path, rules.include, rules.exclude):
                    continue
                files.append(DataFile(path, each.size, each.etag))
                keys.append(each.key)
            after = page.after
            if not after or len(files) > most:
                break
        if len(files) > most:
            raise RequestRefused(
                "storage",
                f"`{mount.target}`: {url_of(mount)} holds more than {most:,} objects; copy less of it with "
                "`sync: {include: …}`, or say `mode: MOUNT`",
            )
        if not files and not self._kinds.of(mount).may_be_empty:
            raise ObjectMissing(
                f"nothing lies at {url_of(mount)}"
                + (", as `sync` has it" if rules.include or rules.exclude else ""),
                f"`argosy storage ls {bucket.url}/` shows what there is",
            )
        check_names(mount, [each.path for each in files])
        shape = self._kinds.of(mount).shape(bucket)
        return Listing(bucket, tuple(files), tuple(keys), False, shape)

    def _lacking(self, bucket: Bucket, prefix: str, there: str, rules: SyncRules) -> Listing:
        """What another place lacks, by the rules of a copy between stores."""
        target = self.opened(StorageMount(target="", sources=(there,)))
        kept = Rules(include=rules.include, exclude=rules.exclude)
        todo = steps(entries(bucket, prefix), entries(*target), same_objects, kept, removes=False).copies
        bad = not_on_disk(each.name for each in todo)  # whoever compares both sides at the end copies them
        todo = tuple(each for each in todo if each.name not in bad)
        files = tuple(DataFile(each.name, each.size, each.etag) for each in todo)
        return Listing(bucket, files, tuple(prefix + each.name for each in todo), False)

    def opened(self, mount: StorageMount) -> tuple[Bucket, str]:
        """Raises `BucketError`."""
        return self._kinds.of(mount).opened(mount)

    async def _fetch(
        self,
        agent: AgentPort,
        job: Workload,
        node: Node,
        mount: StorageMount,
        listing: Listing,
        rules: SyncRules,
    ) -> None:
        began_s = self._clock.monotonic_s()
        source = _Source(listing, node, self._clock)
        traits = listing.bucket.traits
        wish = extra_of(mount).encryption if _ENCRYPTS in traits.put_headers else MountEncryption()
        order = FetchOrder(
            target=in_workdir(mount.target),
            files=listing.files,
            single=listing.single,
            full=rules.mode == "full",
            md5=traits.md5_etags,
            encryption=wish.type,
            key_id=wish.key_id,
            shape=listing.shape,
        )
        telling = asyncio.ensure_future(self._tell(job, node, mount, source))
        try:
            got = await agent.fetch(order, source)
        finally:
            telling.cancel()
            await asyncio.wait({telling})
        if got.bytes or got.removed:
            took_s = max(0.1, self._clock.monotonic_s() - began_s)
            await self._say(job, _done_text(node, mount, got, took_s))

    async def _tell(self, job: Workload, node: Node, mount: StorageMount, source: _Source) -> None:
        """How far it is, while it takes long."""
        while True:
            await asyncio.sleep(_TELL_S)
            if source.progress:
                done, total = source.progress
                await self._say(
                    job,
                    f"node {node.index}: {url_of(mount)} to {mount.target}, "
                    f"{render_bytes(done)} of {render_bytes(total)}",
                )

    async def _say(self, job: Workload, text: str) -> None:
        event = Event(at_ms=self._clock.now_ms(), subject=job.id, code="data", text=text)
        await self._store.commit([], events=[event])


def _reachable(href: str) -> str:
    """An address for another machine; "" for the loopback: what answers there is not this store."""
    return "" if is_loopback(urlsplit(href).hostname or "") else href


class _Source:
    """A listing as `infra.agent_port.DataSource`."""

    def __init__(self, listing: Listing, node: Node, clock: Clock) -> None:
        self._listing, self._clock = listing, clock
        self._near = node.ip.startswith("127.")
        self.progress: tuple[int, int] | None = None

    def address(self, index: int) -> str:
        if not self._listing.bucket.traits.signs:
            return ""
        href = self._listing.bucket.sign(self._listing.keys[index], "GET", _SIGNED_S) or ""
        return href if self._near else _reachable(href)

    def read(self, index: int, first: int) -> Iterator[bytes]:
        each = self._listing.files[index]
        return self._listing.bucket.read(self._listing.keys[index], first=first, etag=each.etag)

    def told(self, files: int, done_bytes: int, total_files: int, total_bytes: int) -> None:
        self.progress = (done_bytes, total_bytes)


class _Sink:
    """Where what lies at one path goes, as `infra.agent_port.DataSink`."""

    def __init__(self, opened: tuple[Bucket, str], name: str, done: set[str]) -> None:
        self._bucket, self._prefix = opened
        self._name, self._done = name, done
        self.bytes = 0

    def _key(self, path: str) -> str:
        if not path:  # a file; what ends in `/` takes it in under its own name
            return (
                self._prefix + self._name if self._prefix.endswith("/") or not self._prefix else self._prefix
            )
        return f"{self._prefix.rstrip('/')}/{path}" if self._prefix else path

    def was(self, path: str, etag: str, mode: int) -> None:
        """All of it goes."""

    def reshaped(self, change: Reshaped) -> None:
        """Stores have neither modes nor links."""

    def removed(self, path: str, etag: str) -> None:
        """What is no more stays in the store."""

    def wants(self, path: str, size: int) -> bool:
        return path not in self._done

    def address(self, path: str, size: int) -> str:
        if not self._bucket.traits.signs or size > _PUT_MAX_BYTES:
            return ""
        href = self._bucket.sign(self._key(path), "PUT", _SIGNED_S) or ""
        return _reachable(href)

    @property
    def headers(self) -> Mapping[str, str]:
        return self._bucket.traits.put_headers

    def write(self, path: str, size: int, pieces: Iterator[bytes]) -> None:
        self._bucket.write(self._key(path), pieces, Extra(size=size))

    def sent(self, path: str, size: int) -> None:
        self._done.add(path)
        self.bytes += size


@contextlib.contextmanager
def store_errors(target: str) -> Iterator[None]:
    """What a store says becomes a border error. What may pass is tried again."""
    try:
        yield
    except (StoreBusy, ChangedMeanwhile) as error:
        raise Transient(f"`{target}`: {error}", getattr(error, "after_s", 1.0)) from None
    except BucketError as error:
        hint = f"; {error.hint}" if error.hint else ""
        raise RequestRefused("storage", f"`{target}`: {error}{hint}") from None


def check_names(mount: StorageMount, paths: Sequence[str]) -> None:
    """Raises RequestRefused for names that a bucket can hold and a disk cannot."""
    folders: set[str] = set()
    for path in paths:
        parts = path.split("/")
        if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255 for part in parts):
            raise _no_file(mount, path, "is no path that a disk can hold")
        for count in range(1, len(parts)):
            folders.add("/".join(parts[:count]))
    for path in paths:
        if path in folders:
            raise _no_file(mount, path, "is a file, and a folder of other objects, too")


def _no_file(mount: StorageMount, path: str, what: str) -> RequestRefused:
    text = f"`{mount.target}`: the object `{path}` of {url_of(mount)} {what}"
    return RequestRefused("storage", f"{text}; leave it out: `sync: {{exclude: ['{path}']}}`")


def _done_text(node: Node, mount: StorageMount, got: Fetched, took_s: float) -> str:
    text = (
        f"node {node.index}: {mount.target} has {many(got.files, 'file')} of {url_of(mount)}; "
        f"{render_bytes(got.bytes)} came in {took_s:.1f} s"
    )
    if got.removed:
        text += f", {many(got.removed, 'file')} went"
    if got.relayed:
        why = f", as the node did not get it itself: {got.why}" if got.why else ""
        text += f" ({render_bytes(got.relayed)} through the server{why})"
    return text
