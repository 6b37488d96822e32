"""stat: facts of files, in a format of one's own (-c, --printf) or as JSON. Many are asked for side by
side."""

from __future__ import annotations

import os
import re
import stat
import time

from argosy.files.twin.modes import name_of
from argosy.files.twin.options import table, take_options
from argosy.files.twin.session import Session, Usage
from argosy.files.twin.walk import Tool, Walk

_TABLE = table("L:dereference", format="c=", printf="=")
_DEFAULT = "%A %h %U %G %s %y %n"


def kind_words(st: os.stat_result) -> str:
    """As GNU's `stat -c %F`."""
    mode = st.st_mode
    if stat.S_ISREG(mode):
        return "regular file" if st.st_size else "regular empty file"
    for test, words in (
        (stat.S_ISDIR, "directory"),
        (stat.S_ISLNK, "symbolic link"),
        (stat.S_ISCHR, "character special file"),
        (stat.S_ISBLK, "block special file"),
        (stat.S_ISFIFO, "fifo"),
    ):
        if test(mode):
            return words
    return "socket"


def _when(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    local = time.localtime(seconds)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', local)}.{rest:09d} {time.strftime('%z', local)}"


def fact(letter: str, path: str, st: os.stat_result) -> str:
    """What `%letter` stands for."""
    numbers = {
        "s": st.st_size, "b": st.st_blocks, "B": 512, "o": st.st_blksize, "u": st.st_uid, "g": st.st_gid,
        "i": st.st_ino, "h": st.st_nlink, "d": st.st_dev, "X": int(st.st_atime), "Y": int(st.st_mtime),
        "Z": int(st.st_ctime),
    }  # fmt: skip
    if letter in numbers:
        return str(numbers[letter])
    hexes = {"f": st.st_mode, "D": st.st_dev, "t": os.major(st.st_rdev), "T": os.minor(st.st_rdev)}
    if letter in hexes:
        return f"{hexes[letter]:x}"
    times = {"x": st.st_atime_ns, "y": st.st_mtime_ns, "z": st.st_ctime_ns}
    if letter in times:
        return _when(times[letter])
    words = {
        "n": path,
        "F": kind_words(st),
        "a": f"{st.st_mode & 0o7777:o}",
        "A": stat.filemode(st.st_mode),
        "%": "%",
        "U": name_of(st.st_uid, group=False) or "UNKNOWN",
        "G": name_of(st.st_gid, group=True) or "UNKNOWN",
    }
    return words.get(letter, "?")


def run(session: Session, words: list[str]) -> int:
    """Run stat. Raises Usage."""
    given, paths = take_options(words, _TABLE)
    text, escapes, follow = _DEFAULT, False, False
    for name, value in given:
        if name == "dereference":
            follow = True
        else:
            text, escapes = value or "", name == "printf"
    if not paths:
        raise Usage("missing operand")
    found: list[os.stat_result | OSError] = [OSError()] * len(paths)
    walk = Walk(session, Tool())

    def look(index: int) -> None:
        try:
            found[index] = os.stat(paths[index], follow_symlinks=follow)
        except OSError as error:
            found[index] = error
        with session.lock:
            session.entries += 1

    for index in range(len(paths)):
        walk.later(lambda index=index: look(index))  # type: ignore[misc]
    walk.run()
    for path, st in zip(paths, found):  # noqa: B905  Python 3.8 has no strict
        if isinstance(st, OSError):
            session.complain("cannot stat", path, st)
        elif session.json:
            session.put_json(
                path=path, kind=kind_words(st), mode=f"{st.st_mode & 0o7777:04o}", size=st.st_size,
                blocks=st.st_blocks, uid=st.st_uid, gid=st.st_gid, links=st.st_nlink, inode=st.st_ino,
                mtime=int(st.st_mtime),
            )  # fmt: skip
        else:
            line = re.sub("%(.)", lambda match, path=path, st=st: fact(match[1], path, st), text)  # type: ignore[misc]
            if escapes:
                line = line.replace("\\n", "\n").replace("\\t", "\t").replace("\\0", "\0")
            session.put(line, "" if escapes else "\n")
    return int(session.errors > 0)
