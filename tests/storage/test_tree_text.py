"""Changes of stored trees as text are those of the trees themselves."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.model.errors import ArgosyError
from argosy.model.tree import Entry, Tree, TreeChange, change_between, changed
from argosy.storage.blobs import BlobStore
from argosy.storage.tree_text import TreeText

NAMES = st.sampled_from(('a"b', "a\\", '\\"', "é", ',{"path":"', "x\n", "plain", "z"))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
FILES = st.dictionaries(
    PATHS, st.tuples(st.sampled_from("fl"), st.integers(0, 2), st.sampled_from((0o644, 0o755))), max_size=8
)


def a_tree(files: dict[str, tuple[str, int, int]]) -> Tree:
    """Of what may be a tree: what lies in a file or a link is left out."""
    entries = {}
    for path, (kind, size, mode) in sorted(files.items()):
        above = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 1)]
        if any(each in files for each in above):
            continue
        entries.update({each: Entry(path=each, kind="d", mode=0o750) for each in above})
        entries[path] = (
            Entry(path=path, kind="l", mode=0o777, target='t",{"path":"x')
            if kind == "l"
            else Entry(path=path, kind="f", mode=mode, size=size, chunks=("c" * 64,) * min(size, 1))
        )
    return Tree(entries=tuple(sorted(entries.values(), key=lambda entry: entry.path)))


def text_of(tree: Tree) -> bytes:
    return msgspec.json.encode(tree, order="deterministic")


@given(FILES, FILES)
def test_a_change_of_the_text_is_that_of_the_tree(
    one: dict[str, tuple[str, int, int]], other: dict[str, tuple[str, int, int]]
) -> None:
    old, new = a_tree(one), a_tree(other)
    change = change_between(old, new, "since")
    text = TreeText(text_of(old))
    # A client tells less: no folders above, and not which folders are gone.
    plain = {each.path: each for each in old.entries}
    told = TreeChange(
        since="since",
        entries=tuple(each for each in new.entries if plain.get(each.path) != each),
        removed=change.removed,
    )
    full = text.change(told)
    assert text.text() == text_of(new)
    assert hashlib.sha256(text.text()).hexdigest() == new.digest()
    assert (set(full.entries), full.folders) == (set(change.entries), change.folders)
    assert changed(old, change) == new


@pytest.mark.parametrize(
    "entries",
    [
        (Entry(path="f/x", kind="f"),),
        (Entry(path="d", kind="l", target="f"),),
        (Entry(path="n", kind="f"), Entry(path="n/x", kind="f")),
    ],
)
def test_what_would_be_written_through_a_link_or_a_file_is_refused(entries: tuple[Entry, ...]) -> None:
    old = Tree(entries=(Entry(path="d", kind="d"), Entry(path="d/x", kind="f"), Entry(path="f", kind="f")))
    with pytest.raises(ArgosyError) as caught:
        TreeText(text_of(old)).change(TreeChange(since="", entries=entries))
    assert caught.value.code == "path-escapes"


def test_what_is_no_folder_has_no_entries() -> None:
    for text in (b"", b"{}", b'{"entries":[],"is_file":true}'):
        with pytest.raises(KeyError):
            TreeText(text)


def test_a_store_refuses_what_it_cannot_make(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    data = hashlib.sha256(b"x").hexdigest()

    async def scenario() -> None:
        since = await blobs.put_tree(text_of(Tree(entries=())))
        there = TreeChange(since=since, entries=(Entry(path="x", kind="f", size=1, chunks=(data,)),))
        with pytest.raises(ArgosyError, match="not on the server: 1 chunk of the tree"):
            await blobs.change_tree(there)
        await blobs.put(data, b"x")
        digest = await blobs.change_tree(there)
        assert msgspec.json.decode(await blobs.tree(digest), type=Tree).entries == there.entries
        assert (await blobs.change(since, digest)).entries == there.entries
        with pytest.raises(ArgosyError, match="the tree that has changed is not on the server"):
            await blobs.change_tree(msgspec.structs.replace(there, since="0" * 64))
        with pytest.raises(ArgosyError, match="not a path inside a tree"):
            await blobs.change_tree(
                msgspec.structs.replace(there, entries=(Entry(path="../x", kind="l", target="y"),))
            )
        with pytest.raises(KeyError):
            await blobs.change("0" * 64, digest)

    asyncio.run(scenario())
