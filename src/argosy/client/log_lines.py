"""The log of a job as lines to iterate over, for programs that read it as it is written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from argosy.client.printing import Out


class _Lines:
    """A stream of text that hands over whole lines."""

    def __init__(self, put: Callable[[str], None]) -> None:
        self._put, self._rest = put, ""

    def write(self, data: str) -> int:
        if not isinstance(data, str):
            raise TypeError("text")  # `Printer` then decodes
        *lines, self._rest = (self._rest + data).split("\n")
        for line in lines:
            self._put(line + "\n")
        return len(data)

    def flush(self) -> None:
        return

    def end(self) -> None:
        if self._rest:
            self._put(self._rest)


def log_lines(show: Callable[[Out], object]) -> Iterator[str]:
    """Lines as `show` writes them to the stream that it is given. What it raises is raised at the end.

    >>> list(log_lines(lambda out: out.write("a\\nb")))
    ['a\\n', 'b']
    """
    lines: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        out = _Lines(lines.put)
        try:
            show(out)
            out.end()
        except BaseException as error:  # noqa: BLE001  # raised where the lines are read
            lines.put(error)
        finally:
            lines.put(None)

    threading.Thread(target=work, name="argosy-log-lines", daemon=True).start()
    while (line := lines.get()) is not None:
        if isinstance(line, BaseException):
            raise line
        yield line
