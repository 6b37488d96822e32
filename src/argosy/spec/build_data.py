"""From what was read to the model: where a task's data comes from and goes, and what is kept of it."""

from __future__ import annotations

import msgspec

from argosy.model.own_volumes import type_of
from argosy.model.task import CheckpointRules, FileMount, Returned, StorageMount, SyncRules, VolumeMount
from argosy.spec.findings import Findings
from argosy.spec.notation import split_url
from argosy.spec.reader import Reader
from argosy.spec.shapes import Entry, Section


def json_text(plain: object) -> str:
    """Canonical JSON; empty for nothing."""
    return msgspec.json.encode(plain, order="deterministic").decode() if plain else ""


def texts(section: Section, name: str) -> tuple[str, ...]:
    """A list of texts; () when it was not given."""
    value = section.get(name, tuple)
    return tuple(str(item) for item in value or ())


def build_checkpoints(task: Section, findings: Findings) -> CheckpointRules:
    given = task.get("checkpoints", object)
    section = given if isinstance(given, Section) else None
    to = (section.get("to", str) if section is not None else given) or ""
    if to and not split_url(str(to)):
        text = f"`checkpoints` are kept in `{to}`, which is no URL of an object store"
        findings.error(task.places["checkpoints"], text, "write for example s3://bucket/run-42/")
    if section is None:
        return CheckpointRules(to=str(to))
    return CheckpointRules(
        to=str(to),
        keep_last=section.get("keep_last", int) or 1,
        keep_every_s=section.get("keep_every", int) or 0,
    )


def build_sync(task: Section) -> SyncRules:
    section = task.get("sync", Section)
    if section is None:
        return SyncRules()
    return SyncRules(
        include=texts(section, "include"),
        exclude=texts(section, "exclude"),
        mode=section.get("mode", str) or "",
    )


def build_returns(task: Section, reader: Reader, findings: Findings) -> tuple[Returned, ...]:
    """What of `outputs` is sent; sizes are for plans of several tasks."""
    made = []
    for entry in task.get("outputs", tuple) or ():
        if not isinstance(entry, Entry):
            raise TypeError(entry)
        key = str(entry.key)
        if not isinstance(entry.value, str):
            reader.postpone("outputs", entry.place)
        elif split_url(key) or not split_url(entry.value):
            text = f"`outputs` has `{key}: {entry.value}`, which is no path with a URL"
            findings.error(entry.place, text, "write `path/on/the/node: s3://bucket/folder/`")
        else:
            made.append(Returned(path=key, url=entry.value))
    return tuple(made)


def build_volumes(task: Section, reader: Reader, findings: Findings) -> tuple[VolumeMount, ...]:
    """Folders by path: `NAME`, `NAME/PART`, either with `:ro` or `:rw`, or a mapping; with `type` a volume
    that a place has itself."""
    made = []
    for entry in task.get("volumes", tuple) or ():
        if not isinstance(entry, Entry):
            raise TypeError(entry)
        target, value, extra, kind, size = str(entry.key), entry.value, "", "", 0
        if isinstance(value, Section):
            name, part, mode = value.get("name", str) or "", value.get("sub_path", str) or "", ""
            kind, size = value.get("type", str) or "", value.get("size", int) or 0
            extra = json_text(value.plain)
            if "labels" in value:
                reader.postpone(f"volumes {target} labels", entry.place)
            if not (name or size or extra):
                findings.error(entry.place, "which volume is meant?", "write `name`, or `size` for a new one")
        else:
            text, _, mode = str(value).partition(":")
            name, _, part = text.partition("/")
        if mode not in ("", "ro", "rw"):
            text = f"`{mode}` is no way to mount a folder"
            findings.error(entry.place, text, f"write `{name}`, or `{name}:ro` to read only")
        wanted = VolumeMount(
            target=target, folder="", name=name, sub_path=part, type=kind, size_bytes=size, extra=extra
        )
        if not type_of(wanted):
            wanted = msgspec.structs.replace(wanted, folder=name, name="", read_only=mode == "ro")
        made.append(wanted)
    return tuple(made)


def build_mounts(
    task: Section, reader: Reader, findings: Findings
) -> tuple[tuple[FileMount, ...], tuple[StorageMount, ...]]:
    """What the client sends, and what comes from object stores."""
    files: list[FileMount] = []
    stores: list[StorageMount] = []
    targets: set[str] = set()
    for name in ("file_mounts", "storage_mounts"):
        for entry in task.get(name, tuple) or ():
            if not isinstance(entry, Entry):
                raise TypeError(entry)
            target = str(entry.key)
            if target in targets:
                findings.error(
                    entry.place,
                    f"`{target}` is in `file_mounts` and in `storage_mounts`",
                    "keep one of the two",
                )
            targets.add(target)
            made = _mount(name, target, entry, reader)
            if isinstance(made, FileMount):
                files.append(made)
            else:
                stores.append(made)
    return tuple(files), tuple(stores)


def _mount(name: str, target: str, entry: Entry, reader: Reader) -> FileMount | StorageMount:
    if isinstance(entry.value, Section):
        made = _storage(target, entry.value, reader)
        local = [source for source in made.sources if not split_url(source)]
        if local and made.mode == "COPY" and made.name is None and len(made.sources) == 1:
            return FileMount(target=target, source=local[0])
        if local and (made.name is None or len(local) != len(made.sources)):
            reader.postpone(f"file_mounts {target}", entry.place)
        return made
    source = str(entry.value)
    if name == "file_mounts" and not split_url(source):
        return FileMount(target=target, source=source)
    mode = "COPY" if name == "file_mounts" else "MOUNT"
    return StorageMount(target=target, sources=(source,), mode=mode)


def _storage(target: str, section: Section, reader: Reader) -> StorageMount:
    name = section.get("name", str)
    sources = texts(section, "source")
    if name is None and not sources:
        reader.missing(section, f"file_mounts.{target}", "source", "or the `name` of a bucket")
    persistent = section.get("persistent", bool)
    return StorageMount(
        target=target,
        sources=sources,
        name=name,
        store=section.get("store", str),
        mode=section.get("mode", str) or "MOUNT",
        persistent=True if persistent is None else persistent,
        extra=json_text(section.plain),
    )
