"""Resources of dstack: CPUs, memory, disk and GPUs, each with a range."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from argosy.convert import amounts
from argosy.convert.draft import Draft
from argosy.convert.dstack_values import range_text
from argosy.convert.reading import Fields, is_nothing, text_of, wrong
from argosy.spec.findings import excerpt
from argosy.spec.source import Node, Pairs, Scalar

_TPU: Final = re.compile(r"v[0-9]+(?:litepod|lite|p|e)?-[0-9]+")
_VENDORS: Final = ("nvidia", "amd", "google", "intel", "tpu", "tenstorrent")


def read_resources(section: Fields, draft: Draft) -> None:
    """`resources` of a run, or of a group of replicas."""
    cpu = section.take("cpu")
    if cpu is not None:
        count, kind = _parted(cpu, "resources.cpu", draft)
        if kind:
            draft.lose("resources.cpu.arch", kind, "name an `instance_type` of that architecture")
        if count:
            draft.resources["cpus"] = _least(draft, cpu, "resources.cpu", count, _whole_cpus)
    memory = section.take("memory")
    if memory is not None:
        draft.resources["memory"] = _least(
            draft, memory, "resources.memory", range_text(memory, "resources.memory"), _memory
        )
    shared = section.text("shm_size")
    if shared:
        draft.option(f"--shm-size={_size(section, 'shm_size', shared).lower().removesuffix('b')}")
    disk = section.take("disk")
    if disk is not None:
        if isinstance(disk, Pairs):
            inner = section.below(disk, "resources.disk")
            size = inner.take("size")
        else:
            size = disk
        if size is not None:
            low = range_text(size, "resources.disk").partition("..")[0]
            if low:
                draft.resources["disk_size"] = _size(section, "disk", low)
    gpu = section.take("gpu")
    if gpu is not None:
        _read_gpu(draft, gpu, section)


def _size(section: Fields, name: str, text: str) -> str:
    try:
        return amounts.bytes_text(amounts.unit_bytes(text))
    except ValueError as error:
        raise section.wrong(f"`{section.at(name)}`: {error}") from None


def _least(draft: Draft, node: Node, path: str, text: str, make: Callable[[str, bool], str]) -> str:
    """`4` exactly, `4..` at least; of `4..8` the lower end."""
    low, dots, high = text.replace(" ", "").partition("..")
    if dots and high and low != high:
        draft.note("resources", f"{path}: {excerpt(text)} has an upper end; only the lower end counts")
    if not low:
        draft.lose(path, text, "there is no upper limit")
        low, dots = high, ".."
    try:
        return make(low, not dots or low == high)
    except ValueError as error:
        raise wrong(node, f"`{path}`: {error}") from None


def _read_gpu(draft: Draft, node: Node, section: Fields) -> None:
    names: list[str] = []
    vendor = memory = ""
    count = "1"
    if isinstance(node, Scalar):
        for token in node.raw.replace(" ", "").split(":"):
            if not token:
                raise wrong(node, "`resources.gpu` has an empty part between `:`")
            if token.lower() in _VENDORS:
                vendor = token.lower()
            elif token[0].isalpha():
                names = token.split(",")
            elif any(letter.isalpha() for letter in token):
                memory = token
            else:
                count = token
    else:
        inner = section.below(node, "resources.gpu")
        names = [name for text in inner.texts("name") for name in text.split(",")]
        vendor = (inner.text("vendor") or "").lower()
        counted = inner.take("count")
        count = range_text(counted, "resources.gpu.count") if counted is not None else "1"
        sized = inner.take("memory")
        memory = range_text(sized, "resources.gpu.memory") if sized is not None else ""
        inner.drop("total_memory", "say the memory of one: `80GB+:2`")
        inner.drop("compute_capability", "name the GPUs that have it")
    low, dots, high = count.replace(" ", "").partition("..")
    number = low or high
    if not number.isdigit() or len(number) > 5:
        raise wrong(node, f"`{excerpt(count)}` is no number of GPUs")
    if dots and low != high:
        draft.note("resources", f"gpu: of {excerpt(count)} GPUs, {number} are taken")
    if int(number) == 0:
        return
    if vendor in ("tpu", "google") or any(name.startswith("tpu-") or _TPU.fullmatch(name) for name in names):
        names = [name if name.startswith("tpu-") else f"tpu-{name}" for name in names]
    _wish(draft, node, [name for name in names if name], vendor, memory, int(number))


def _wish(draft: Draft, node: Node, names: list[str], vendor: str, memory: str, count: int) -> None:
    least = 0
    if memory:
        low = memory.replace(" ", "").partition("..")[0]
        try:
            least = amounts.unit_bytes(low) if low else 0
        except ValueError as error:
            raise wrong(node, f"`resources.gpu`: {error}") from None
    if names:
        wishes = [_sized(name, least) for name in names]
        texts = [amounts.accelerator(name, count) for name in wishes]
        if not all(texts):
            raise wrong(node, f"`{excerpt(', '.join(names))}` names no GPU")
        draft.resources["accelerators"] = (
            texts[0] if len(texts) == 1 else {text.rpartition(":")[0]: count for text in texts if text}
        )
        if memory:
            draft.note("resources", f"gpu memory {excerpt(memory)} is told by the name")
        return
    vendor = {"tpu": "google"}.get(vendor, vendor)
    if vendor == "tenstorrent":  # nobody rents them out by another name
        draft.resources["accelerators"] = f"tenstorrent:{count}"
        if memory:
            draft.lose(
                "resources.gpu.memory", memory, "name a model: no prices of Tenstorrent tell the memory"
            )
        return
    try:
        size = amounts.bytes_text(least) if least else "1GB"
    except ValueError as error:
        raise wrong(node, f"`resources.gpu`: {error}") from None
    draft.resources["accelerators"] = f"{vendor + ':' if vendor else ''}{size}+:{count}"
    if memory and not memory.endswith(".."):
        draft.note("resources", f"gpu memory {excerpt(memory)}: more will do, too; there is no upper limit")


def _parted(node: Node, path: str, draft: Draft) -> tuple[str, str]:
    """Count and architecture of `x86:4..8` or `{arch, count}`."""
    if isinstance(node, Pairs):
        given = {key.raw: value for key, value in node.pairs if isinstance(key, Scalar)}
        if "count" in given or "arch" in given:
            arch = text_of(given["arch"], path) if not is_nothing(given.get("arch")) else ""
            return (range_text(given["count"], path) if not is_nothing(given.get("count")) else "", arch)
        return range_text(node, path), ""
    first, colon, rest = text_of(node, path).replace(" ", "").partition(":")
    if colon:
        return rest, first
    return ("", first) if first[:1].isalpha() else (first, "")


def _whole_cpus(text: str, exact: bool) -> str:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError(f"`{excerpt(text)}` is no number of CPUs")
    return amounts.cpus_text(int(text), exact=exact)


def _memory(text: str, exact: bool) -> str:
    return amounts.memory_text(amounts.unit_bytes(text), exact=exact)


def _sized(name: str, least: int) -> str:
    """The name that tells the memory, where there is one."""
    size = least >> 30
    upper = name.upper()
    if upper == "A100" and size > 40:
        return "A100-80GB"
    if upper == "V100" and size > 16:
        return "V100-32GB"
    return name
