"""One HTTP call without a library, for the few that no library of a store makes for us."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from argosy.infra.buckets import StoreUnreachable

_TIMEOUT_S: Final = 30.0


class Told(NamedTuple):
    status: int
    body: bytes

    def field(self, name: str) -> str:
        """The text of the first XML element of this name, which holds no others; "": there is none.

        >>> Told(403, b"<Error><Code> Denied </Code></Error>").field("Code")
        'Denied'
        """
        found = re.search(rf"<{name}>([^<]*)</{name}>", self.body.decode("utf-8", "replace"))
        return found[1].strip() if found is not None else ""


def one_call(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Told:
    """The reply, whatever its status. Raises `StoreUnreachable`."""
    split = urlsplit(url)
    kind = http.client.HTTPSConnection if split.scheme == "https" else http.client.HTTPConnection
    connection = kind(split.netloc, timeout=_TIMEOUT_S)
    try:
        target = f"{split.path or '/'}{'?' + split.query if split.query else ''}"
        connection.request(method, target, body=body, headers=dict(headers))
        response = connection.getresponse()
        return Told(response.status, response.read())
    except (OSError, http.client.HTTPException) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StoreUnreachable(
            f"{split.netloc} does not answer ({why or type(error).__name__})",
            "check the endpoint and the network",
        ) from None
    finally:
        connection.close()
