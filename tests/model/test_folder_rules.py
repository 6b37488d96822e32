"""Who may do what with a folder: tables, texts, and random steps beside a model that is written another
way."""

from __future__ import annotations

import os
import random

import msgspec
import pytest

from argosy.model import folders as rules
from argosy.model.errors import ArgosyError
from argosy.model.folders import Access, Folder, FolderGrant, access

HOUR = 3_600_000


def a_folder(**more: object) -> Folder:
    return msgspec.structs.replace(
        Folder(id="fld-1", created_ms=0, name="train", project="vision", owner="ann"), **more
    )


def has(folder: Folder, name: str, *projects: str, now_ms: int = 0, manages: bool = False) -> Access:
    return access(folder, name, frozenset(projects), now_ms, manages=manages)


def test_owner_grants_projects_and_time() -> None:
    folder = a_folder(
        grants=(
            FolderGrant(to="bob", level="rw"),
            FolderGrant(to="project:vision", level="ro"),
            FolderGrant(to="eve", level="rw+delete", until_ms=10),
        )
    )
    assert has(folder, "ann") is Access.MANAGE
    assert has(folder, "bob") is Access.WRITE
    assert has(folder, "bob", "vision") is Access.WRITE
    assert has(folder, "dan", "vision") is Access.READ
    assert has(folder, "dan", "speech") is Access.NOTHING
    assert has(folder, "eve", now_ms=9) is Access.REMOVE
    assert has(folder, "eve", now_ms=10) is Access.NOTHING
    assert has(folder, "dan", manages=True) is Access.MANAGE
    assert has(a_folder(owner=""), "") is Access.NOTHING
    assert has(a_folder(grants=(FolderGrant(to="project:", level="rw"),)), "dan", "") is Access.NOTHING


def test_data_and_models_are_written_by_who_manages_them() -> None:
    for use in ("data", "model"):
        folder = a_folder(use=use, grants=(FolderGrant(to="bob", level="rw+delete"),))
        assert has(folder, "bob") is Access.READ
        assert has(folder, "ann") is Access.MANAGE


def test_a_folder_is_given_another_use() -> None:
    shared = a_folder(grants=(FolderGrant(to="bob", level="rw"),))
    assert has(rules.used_for(shared, "model"), "bob") is Access.READ
    assert has(rules.used_for(rules.used_for(shared, "data"), "general"), "bob") is Access.WRITE
    with pytest.raises(ArgosyError, match="`tape` is no use of a folder"):
        rules.used_for(shared, "tape")


def test_in_the_trash_only_who_manages_sees_it() -> None:
    folder = rules.trashed(a_folder(grants=(FolderGrant(to="bob", level="rw"),)), 5)
    assert has(folder, "bob") is Access.NOTHING and has(folder, "ann") is Access.MANAGE
    assert folder.unique == "" and rules.restored(folder).unique == "folder:vision::train"
    assert has(a_folder(removed_ms=1), "ann") is Access.NOTHING


def test_dot_folders_are_of_their_owner() -> None:
    one, other = a_folder(name=".config"), a_folder(name=".config", owner="bob")
    assert one.is_dot and one.unique != other.unique
    assert a_folder().unique == a_folder(owner="bob").unique


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (lambda f: rules.shared(f, "ann", "ro"), "`ann` owns `train` already"),
        (lambda f: rules.shared(f, "bob", "all"), "`all` is no level of access"),
        (lambda f: rules.unshared(f, "bob"), "`train` is not shared with `bob`"),
        (lambda f: rules.answered(f, "bob", 0, accepts=True), "nobody invited you to a folder `train`"),
        (lambda f: rules.restored(f), "`train` is not in the trash"),
        (lambda f: rules.trashed(rules.trashed(f, 1), 2), "`train` is in the trash"),
        (lambda f: rules.transferred(f, "ann"), "`train` belongs to `ann` already"),
        (
            lambda f: rules.answered(
                rules.invited(f, "bob", "ro", by="ann", until_ms=5), "bob", 6, accepts=True
            ),
            "the invitation to `train` has expired",
        ),
        (
            lambda f: rules.check_room(rules.with_quota(f, 1 << 30), 1 << 30, 1 << 20),
            "`train` has 1 GB, of which 0 B are used and 1 MB are on their way; 1 GB more do not fit",
        ),
    ],
)
def test_refusals_say_what_is_wrong_and_what_helps(turn: rules.Turn, text: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        turn(a_folder())
    assert caught.value.what == text and caught.value.hint


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "-x", "x" * 65, "a b", "größe", "..x", ".-", "a\0b", "a\n"]
)
def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(ArgosyError):
        rules.check_folder_name(name)


def test_names() -> None:
    for name in ("train", ".config", "a.b-c_d9", "X" * 64):
        assert rules.check_folder_name(name) == name


PEOPLE = ("ann", "bob", "dan", "eve")
PROJECTS = {"ann": {"vision"}, "bob": {"vision", "speech"}, "dan": {"speech"}, "eve": set()}


class Plain:
    """The same, as dictionaries of who has what, without tuples and rows."""

    def __init__(self) -> None:
        self.owner, self.trashed = "ann", False
        self.level: dict[str, tuple[str, int]] = {}
        self.asked: dict[str, tuple[str, int]] = {}

    def may(self, name: str, now: int) -> int:
        if name == self.owner:
            return 4
        if self.trashed:
            return 0
        mine = [name, *(f"project:{each}" for each in PROJECTS[name])]
        held = [self.level[each] for each in mine if each in self.level]
        return max(
            (["", "ro", "rw", "rw+delete"].index(word) for word, end in held if not end or now < end),
            default=0,
        )


def test_random_steps_beside_a_model() -> None:
    steps = 5000 if os.environ.get("ARGOSY_NIGHTLY") else 600
    dice = random.Random(7)
    folder, plain, now = a_folder(), Plain(), 0
    refused = 0
    for _ in range(steps):
        now += dice.randrange(HOUR)
        to = dice.choice((*PEOPLE, "project:vision", "project:speech"))
        level = dice.choice(tuple(rules.LEVELS))
        until = dice.choice((0, now + dice.randrange(4 * HOUR)))
        step = dice.choice(
            ("share", "unshare", "invite", "accept", "decline", "trash", "restore", "transfer")
        )
        try:
            folder = _step(folder, step, to, level, until, now)
            done = True
        except ArgosyError:
            done = False
            refused += 1
        assert done == _plain_step(plain, step, to, level, until, now), (step, to)
        for name in PEOPLE:
            projects = frozenset(PROJECTS[name])
            assert access(folder, name, projects, now, manages=False) == plain.may(name, now), (
                step,
                to,
                name,
            )
        folder = msgspec.json.decode(msgspec.json.encode(folder), type=Folder)
    assert 0 < refused < steps


def _step(folder: Folder, step: str, to: str, level: str, until: int, now: int) -> Folder:
    if step == "share":
        return rules.shared(folder, to, level, until)
    if step == "unshare":
        return rules.unshared(folder, to)
    if step == "invite":
        return rules.invited(folder, to, level, by="ann", until_ms=until or now + HOUR)
    if step in ("accept", "decline"):
        return rules.answered(folder, to, now, accepts=step == "accept")
    if step == "transfer":
        return rules.transferred(folder, to)
    return rules.trashed(folder, now) if step == "trash" else rules.restored(folder)


def _plain_step(plain: Plain, step: str, to: str, level: str, until: int, now: int) -> bool:
    there = not plain.trashed
    if step == "share":
        if not there or to == plain.owner:
            return False
        plain.level[to] = (level, until)
        plain.asked.pop(to, None)
    elif step == "unshare":
        if to not in plain.level and to not in plain.asked:
            return False
        plain.level.pop(to, None)
        plain.asked.pop(to, None)
    elif step == "invite":
        if not there or to == plain.owner or plain.level.get(to, ("",))[0] == level:
            return False
        plain.asked[to] = (level, until or now + HOUR)
    elif step in ("accept", "decline"):
        if to not in plain.asked or plain.asked[to][1] <= now:
            return False
        if step == "accept" and (not there or to == plain.owner):
            return False
        word = plain.asked.pop(to)[0]
        if step == "accept":
            plain.level[to] = (word, 0)
    elif step == "transfer":
        if not there or to == plain.owner:
            return False
        plain.owner = to
        plain.level.pop(to, None)
    elif step == "trash":
        if not there:
            return False
        plain.trashed = True
    else:
        if there:
            return False
        plain.trashed = False
    return True
