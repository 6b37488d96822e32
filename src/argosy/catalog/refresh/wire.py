"""Talking to price services: JSON over HTTPS by the standard library, typed answers, polite retries, no secrets in texts."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from argosy.model.errors import ArgosyError

Answer = TypeVar("Answer")
_TRIES = 4
_LIMIT_BYTES = 64 << 20


class Wire:
    """One price service.

    Args:
        provider: for messages.
        base_url: scheme and host (and path, without a slash at the end); tests give their own.
        headers: sent with each request; never shown.
        hint: what to do when it does not let us in.
        sleep_s: waits between tries.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        hint: str = "",
        timeout_s: float = 60,
        sleep_s: Callable[[float], None] | None = None,
    ) -> None:
        self.provider = provider
        self.base_url = base_url
        self._headers = {"Accept": "application/json", "User-Agent": "argosy", **(headers or {})}
        self._hint = hint
        self._timeout_s = timeout_s
        self._sleep_s = sleep_s

    def get(self, path: str, answer: type[Answer], query: Mapping[str, str] | None = None) -> Answer:
        """GET `path` (or an absolute URL on the same host). Raises ArgosyError."""
        return self._ask(self._url(path, query), None, answer)

    def post(self, path: str, body: object, answer: type[Answer]) -> Answer:
        return self._ask(self._url(path, None), msgspec.json.encode(body), answer)

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        url = path if "://" in path else self.base_url + path
        ours, theirs = urllib.parse.urlsplit(self.base_url), urllib.parse.urlsplit(url)
        if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
            # A next page elsewhere: our headers may hold a secret.
            raise self.refused(f"it sends us to {theirs.netloc}")
        if query:
            url += ("&" if theirs.query else "?") + urllib.parse.urlencode(query)
        return url

    def refused(self, why: str) -> ArgosyError:
        return ArgosyError(
            "transient",
            f"the price service of {self.provider} cannot be used: {why}; the old prices are kept",
            hint=f"repeat `argosy catalog refresh {self.provider}` later",
        )

    def _ask(self, url: str, body: bytes | None, answer: type[Answer]) -> Answer:
        for left in reversed(range(_TRIES)):
            try:
                data = self._once(url, body)
                break
            except urllib.error.HTTPError as error:
                with error:
                    if error.code in (401, 403):
                        raise ArgosyError(
                            "unauthorized",
                            f"the price service of {self.provider} does not let us in ({error.code}); "
                            "the old prices are kept",
                            hint=self._hint
                            or f"`argosy check {self.provider}` says which credentials it needs",
                        ) from None
                    if not left or not (error.code == 429 or error.code >= 500):
                        raise self.refused(f"it answers {error.code}") from None
                    wait_s = _retry_after_s(error.headers.get("Retry-After"), 2.0 ** (_TRIES - left - 1))
            except (OSError, ValueError) as error:
                if not left:
                    reason = getattr(error, "reason", error)
                    raise self.refused(f"{reason}") from None
                wait_s = 2.0 ** (_TRIES - left - 1)
            self._sleep(wait_s)
        try:
            return msgspec.json.decode(data, type=answer)
        except msgspec.MsgspecError as error:
            raise self.refused(f"its answer has another form than we know ({error})") from None

    def _once(self, url: str, body: bytes | None) -> bytes:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=self._timeout_s) as reply:  # noqa: S310
            data: bytes = reply.read(_LIMIT_BYTES + 1)
        if len(data) > _LIMIT_BYTES:
            raise ValueError("its answer is larger than 64 MB")
        return data

    def _sleep(self, seconds: float) -> None:
        if self._sleep_s is None:
            import time

            time.sleep(seconds)
        else:
            self._sleep_s(seconds)


def _retry_after_s(header: Any, otherwise: float) -> float:
    try:
        return min(60.0, max(0.0, float(header)))
    except (TypeError, ValueError):
        return otherwise
