"""One call of a tool: its options that all tools know, its output, its errors, its figures."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any


class Usage(Exception):
    """Wrong options: the text says which."""


class Session:
    """What all threads of one call share. Names are `str` with surrogates for bytes that are no UTF-8."""

    def __init__(self, tool: str, trouble: int = 1) -> None:
        self.tool = tool
        self.trouble = trouble  # exit status of wrong options
        self.json = self.dryrun = self.verbose = self.quiet = self.one_fs = self.progress = False
        self.threads = 0  # 0: as many as bring something
        self.entries = self.changed = self.bytes = self.errors = 0
        self.used_threads = 1
        self.stopped = False
        self.lock = threading.Lock()
        self.umask = os.umask(0)
        os.umask(self.umask)
        self._parts: list[bytes] = []
        self._size = 0
        self._terminal = sys.stdout.isatty()
        self._begun = time.monotonic()
        self.output_failed = False

    def put(self, text: str, end: str = "\n") -> None:
        """One record; records of all threads go out whole, in the order in which they end."""
        data = os.fsencode(text + end)
        with self.lock:
            self._parts.append(data)
            self._size += len(data)
            if self._size > 32768 or self._terminal:
                self._write()

    def put_json(self, **fields: Any) -> None:
        self.put(json.dumps(fields))

    def flush(self) -> None:
        with self.lock:
            self._write()

    def _write(self) -> None:
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        try:
            while data:
                data = data[os.write(1, data) :]
        except BrokenPipeError:
            os._exit(141)
        except OSError:
            self.output_failed = True

    def complain(self, what: str, path: str, error: OSError | int = 0) -> None:
        """ "chmod: cannot access 'x': Permission denied"; counts as an error."""
        number = error if isinstance(error, int) else (error.errno or 0)
        shown = "".join("?" if char < " " or char == "\x7f" else char for char in path)
        reason = f": {os.strerror(number)}" if number else ""
        with self.lock:
            self.errors += 1
        self.note(f"{what} '{shown}'{reason}")

    def failed(self, what: str, path: str, error: OSError | int = 0) -> None:
        """As `complain`, without a text where the user wants none (-f)."""
        if not self.quiet:
            self.complain(what, path, error)
            return
        with self.lock:
            self.errors += 1

    def note(self, text: str) -> None:
        try:
            os.write(2, os.fsencode(f"{self.tool}: {text}\n"))
        except OSError:
            pass

    def told(self, verb: str, path: str, to: str = "") -> None:
        """What was done, or would be: shown with -v or --dryrun."""
        with self.lock:
            self.changed += 1
        if not self.verbose and not self.dryrun:
            return
        if self.json:
            self.put_json(action=verb, path=path, **({"to": to} if to else {}))
        else:
            self.put(f"{'would ' if self.dryrun else ''}{verb} '{path}'" + (f" -> '{to}'" if to else ""))

    def summary(self) -> None:
        figures = {
            "tool": self.tool, "entries": self.entries, "changed": self.changed, "bytes": self.bytes,
            "errors": self.errors, "threads": self.used_threads,
            "ms": int((time.monotonic() - self._begun) * 1000),
        }  # fmt: skip
        if self.dryrun:
            figures["dryrun"] = True
        self.put_json(**figures)

    def tell_progress(self, end: str) -> None:
        size = f"{human(self.bytes)} bytes, " if self.bytes else ""
        text = f"{self.entries} entries, {size}{self.errors} errors, {self.used_threads} threads"
        try:
            os.write(2, (text + end).encode())
        except OSError:
            self.progress = False


def human(size: int) -> str:
    """As `du -h`: powers of 1024, rounded up, one digit after the point below 10."""
    if size < 1024:
        return str(size)
    factor, power = 1, -1
    while size // factor >= 1024 and power < 5:
        factor, power = factor << 10, power + 1
    tenths = -(-size * 10 // factor)
    if tenths >= 100:
        tenths = -(-tenths // 10) * 10
    if tenths >= 10240 and power < 5:
        tenths, power = 10, power + 1
    return f"{tenths // 10}" + (f".{tenths % 10}" if tenths < 100 else "") + "KMGTPE"[power]
