"""Which requests at the server's own port are for services. Pure."""

from __future__ import annotations

import re
from typing import Final

#: What the OpenAI surface has; everything else under `/v1` is the server's own.
MODEL_PATHS: Final = ("chat/completions", "completions", "embeddings", "models", "responses")
_ASKS: Final = re.compile(
    r"[A-Z]+ /(?:s/|v1/(?:{})[ ?])".format("|".join(map(re.escape, MODEL_PATHS))).encode()
)
_LINE_BYTES_MAX: Final = 64  # by then it is clear where a request goes


def is_for_service(early: bytes) -> bool | None:
    """Whether a request that begins so is for a service; None: more has to come.

    >>> is_for_service(b"GET /s/chat/ HTTP/1.1"), is_for_service(b"GET /v1/jobs HTTP"), is_for_service(b"GE")
    (True, False, None)
    """
    if _ASKS.match(early) is not None:
        return True
    line = early[:_LINE_BYTES_MAX]
    whole = len(line) == _LINE_BYTES_MAX or b"\n" in line or line.count(b" ") > 1
    return False if whole else None
