"""Checkpoint copies of managed jobs: listing, contents, removal."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec

from argosy.api.checkpoints import CheckpointFiles, CheckpointList, CheckpointView
from argosy.api.endpoint import Done
from argosy.controllers.bucket_trees import BucketTrees, place_of
from argosy.model.errors import ArgosyError
from argosy.model.kinds.job import job_label, job_state, job_task
from argosy.model.kinds.kind import Checkpoint
from argosy.model.rows import Workload
from argosy.model.tree import Tree
from argosy.server.exchange import Exchange
from argosy.server.guarding import require_over
from argosy.server.services import Services
from argosy.storage.blobs import BlobStore

_ID_LENGTH: Final = 12
_TREES_MAX: Final = 4  # whose files are asked for one after another


class CheckpointFeature:
    def __init__(self, services: Services) -> None:
        self._store, self._blobs, self._writer = services.store, services.blobs, services.writer
        self._streams = services.streams
        self._objects = services.objects
        self._trees: OrderedDict[str, Tree] = OrderedDict()

    async def checkpoints(self, exchange: Exchange) -> CheckpointList:
        job = await self._job(exchange)
        rules = job_task(job).checkpoints
        views: list[CheckpointView] = []
        for copy in await self._copies(job):
            try:
                files = sum(entry.kind == "f" for entry in (await self._tree(job, copy)).entries)
            except ArgosyError:
                continue  # its job has ended, and its files are swept
            views.append(
                CheckpointView(
                    id=copy.tree[:_ID_LENGTH],
                    at_ms=copy.at_ms,
                    files=files,
                    size_bytes=copy.size_bytes,
                    newest=not views,
                )
            )
        return CheckpointList(
            job=job.id, checkpoints=tuple(views), keep_last=rules.keep_last, keep_every_s=rules.keep_every_s
        )

    async def checkpoint_files(self, exchange: Exchange) -> CheckpointFiles:
        return CheckpointFiles(tree=await self._tree(*await self._named(exchange)))

    async def checkpoint_chunk(self, exchange: Exchange) -> None:
        job, copy = await self._named(exchange)
        tree, digest = await self._tree(job, copy), exchange.path["digest"]
        if digest not in tree.chunk_digests():
            raise ArgosyError("not-found", f"the checkpoint has no chunk {digest[:12]}")
        try:
            data = await self._files(job).read(digest)
        except KeyError:
            raise _gone(exchange.path["checkpoint"]) from None

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield data

        await exchange.reply_stream("application/octet-stream", pieces())

    async def remove_checkpoint(self, exchange: Exchange) -> Done:
        name = exchange.path["checkpoint"]

        async def act() -> Done:
            job = await self._job(exchange)
            copies = await self._copies(job)
            gone = copies if name == "all" else (_called(job, copies, name),)
            stay = [copy for copy in copies if copy not in gone]
            files = self._files(job)
            if isinstance(files, BucketTrees):
                await files.forget([copy.tree for copy in gone])
            row = job.with_status(checkpoint=stay[0] if stay else None, older=tuple(stay[1:]))
            if gone:
                await self._store.commit([row])
            return Done(names=tuple(copy.tree[:_ID_LENGTH] for copy in gone))

        return await self._writer.retried(act)

    async def _job(self, exchange: Exchange) -> Workload:
        """By id, or by number among managed jobs. Raises `not-found`, `forbidden`."""
        job = await self._streams.job(exchange.path["job"], exchange.caller)
        require_over(exchange.caller, job)
        return job

    def _files(self, job: Workload) -> BlobStore | BucketTrees:
        url = place_of(job)
        if not url:
            return self._blobs
        opened = self._objects.stores.open(url)
        return BucketTrees(opened.bucket, opened.key)

    async def _copies(self, job: Workload) -> tuple[Checkpoint, ...]:
        """The newest first."""
        files = self._files(job)
        return await files.copies() if isinstance(files, BucketTrees) else copies_of(job)

    async def _named(self, exchange: Exchange) -> tuple[Workload, Checkpoint]:
        job = await self._job(exchange)
        return job, _called(job, await self._copies(job), exchange.path["checkpoint"])

    async def _tree(self, job: Workload, copy: Checkpoint) -> Tree:
        """Raises `not-found` when its files are gone."""
        known = self._trees.get(copy.tree)
        if known is None:
            try:
                known = msgspec.json.decode(await self._files(job).tree(copy.tree), type=Tree)
            except KeyError:
                raise _gone(copy.tree[:_ID_LENGTH]) from None
            self._trees[copy.tree] = known
            if len(self._trees) > _TREES_MAX:
                self._trees.popitem(last=False)
        return known


def copies_of(job: Workload) -> tuple[Checkpoint, ...]:
    """The newest first."""
    state = job_state(job)
    return (state.checkpoint, *state.older) if state.checkpoint is not None else state.older


def _called(job: Workload, copies: Sequence[Checkpoint], name: str) -> Checkpoint:
    if not copies:
        raise ArgosyError(
            "not-found",
            f"nothing was copied of job {job_label(job)}",
            hint="managed jobs save into $ARGOSY_CHECKPOINT_DIR; copies are made every minute",
        )
    if name == "newest":
        return copies[0]
    found = [copy for copy in copies if copy.tree.startswith(name)]
    if len(found) != 1:
        text = f"job {job_label(job)} has no checkpoint `{name}`"
        raise ArgosyError("not-found", text, hint=f"`argosy checkpoints ls {job_label(job)}` lists them")
    return found[0]


def _gone(name: str) -> ArgosyError:
    return ArgosyError(
        "not-found",
        f"the files of checkpoint `{name}` are gone",
        hint="copies stay while the job lives, then for a week; older ones may be there still",
    )
