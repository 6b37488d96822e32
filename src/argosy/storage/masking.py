"""Secrets in a stream of bytes are overwritten with `*` of the same length, wherever the stream is cut.

Pure. Same length, so offsets of the agent's file and ours stay equal. Bytes at the end that may be the
beginning of a secret are held back until what follows shows whether they are.
"""

from __future__ import annotations

from collections.abc import Sequence

_SECRET_MIN_BYTES = 4  # docs/decisions/0006: a shorter one would hit everywhere and protect nothing
_LINE_MIN_BYTES = 8  # a shorter line of a many-line secret says little and would hide ordinary words


class Mask:
    """Stream state. What was taken in and not given out yet is held.

    >>> mask = Mask(["hunter2"])
    >>> mask.feed(b"password: hun"), mask.feed(b"ter2!"), mask.flush()
    (b'password: ', b'*******!', b'')
    """

    def __init__(self, secrets: Sequence[str], *, before: bytes = b"", after: Mask | None = None) -> None:
        """`before`: the end of what was given out earlier, by a process that is gone. A secret of which it
        shows the masked beginning is masked to its end. `after`: an older mask of the same stream, whose held
        bytes go on here.
        """
        found = {text.encode() for text in secrets}
        for text in secrets:  # a key of many lines may come out line by line, each with something in front
            found.update(line.encode() for line in text.splitlines() if len(line.encode()) >= _LINE_MIN_BYTES)
        self._secrets = tuple(
            sorted((one for one in found if len(one) >= _SECRET_MIN_BYTES), key=len, reverse=True)
        )
        self._held: bytes = after._held if after is not None else b""
        self._covered: int = (
            after._covered if after is not None else 0
        )  # leading bytes of `_held` to be hidden
        self._stars = len(before) - len(before.rstrip(b"*"))

    @property
    def held(self) -> int:
        """How many bytes are held."""
        return len(self._held)

    @property
    def is_idle(self) -> bool:
        """Nothing to hide and nothing held."""
        return not self._secrets and not self._held

    def feed(self, data: bytes) -> bytes:
        """What may be shown now. Without secrets that is `data` itself."""
        if self.is_idle:
            return data
        text = self._held + data
        if self._stars and text:
            self._covered = max(self._covered, self._continued(text))
            self._stars = 0
        return self._cut(text, len(text) - self._may_begin(text))

    def flush(self) -> bytes:
        """The end of the stream: what was held back was no secret."""
        return self._cut(self._held, len(self._held))

    def _cut(self, text: bytes, at: int) -> bytes:
        """`text` up to `at` with every secret hidden; the rest is held."""
        covered = min(self._covered, len(text))
        hidden = bytearray(text) if covered else None
        if hidden is not None:
            hidden[:covered] = b"*" * covered
        for secret in self._secrets:
            start = text.find(secret)  # ten times as fast as one pattern for all of them
            while start >= 0:
                hidden = hidden if hidden is not None else bytearray(text)
                end = start + len(secret)
                hidden[start:end] = b"*" * len(secret)
                if start < at:
                    covered = max(covered, end)
                start = text.find(secret, start + 1)
        self._held = text[at:]
        self._covered = max(0, covered - at)
        return bytes(hidden[:at]) if hidden is not None else text[:at]

    def _may_begin(self, text: bytes) -> int:
        """Length of the longest end of `text` that is a proper beginning of a secret."""
        best = 0
        for secret in self._secrets:
            at = max(0, len(text) - len(secret) + 1)
            while (at := text.find(secret[:1], at)) >= 0 and len(text) - at > best:
                if secret.startswith(text[at:]):
                    best = len(text) - at
                    break
                at += 1
        return best

    def _continued(self, text: bytes) -> int:
        """How many bytes `text` begins with that end a secret whose beginning was hidden before."""
        for secret in self._secrets:
            for size in range(min(len(secret) - 1, len(text)), 0, -1):
                if len(secret) - size <= self._stars and text.startswith(secret[-size:]):
                    return size
        return 0
