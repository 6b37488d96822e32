"""HTTP client for price services: JSON over HTTPS by the standard library, typed replies, retries with
pauses, no secrets in texts."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from argosy.model.errors import ArgosyError

Answer = TypeVar("Answer")
_TRIES = 4
_LIMIT_BYTES = 64 << 20
_STEP_S = 0.5


class Stopped(Exception):
    """Whoever asked for the refresh does not want it any more. Nothing was kept."""


class Watch(Protocol):
    """Somebody who looks on: is told how far it is, and may call it off. Called by the thread that
    refreshes."""

    def tell(self, text: str) -> None:
        """How far it is: a few words."""
        return

    def wanted(self) -> bool:
        """Whether to go on."""
        return True

    def check(self) -> None:
        """Raises Stopped when it was called off."""
        if not self.wanted():
            raise Stopped

    def seal(self) -> bool:
        """Whether to keep what has come: the last chance to call it off."""
        return self.wanted()


class Nobody(Watch):
    """Looks on and says nothing."""


class Wire:
    """One price service.

    Args:
        provider: for messages.
        base_url: scheme and host (and path, without a slash at the end); tests give their own.
        headers: sent with each request; never shown.
        hint: what to do when it does not let us in.
        sleep_s: waits between tries.
        watch: is told how many answers have come, and may call it off between two of them.
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
        watch: Watch | None = None,
    ) -> None:
        self.provider = provider
        self.base_url = base_url
        self.watch = watch or Nobody()
        self._answers = 0
        self._headers = {"Accept": "application/json", "User-Agent": "argosy", **(headers or {})}
        self._hint = hint
        self._timeout_s = timeout_s
        self._sleep_s = sleep_s

    def get(self, path: str, answer: type[Answer], query: Mapping[str, str] | None = None) -> Answer:
        """GET `path` (or an absolute URL on the same host). Raises ArgosyError."""
        return self._ask(self._url(path, query), None, answer)

    def get_if_there(
        self, path: str, answer: type[Answer], query: Mapping[str, str] | None = None
    ) -> Answer | None:
        """As `get`; None when there is no such thing (404)."""
        try:
            return self._ask(self._url(path, query), None, answer)
        except _NotThere:
            return None

    def post(self, path: str, body: object, answer: type[Answer]) -> Answer:
        return self._ask(self._url(path, None), msgspec.json.encode(body), answer)

    def carry(self, header: str, value: str) -> None:
        """Send this header, which may be a secret, with each further request."""
        self._headers[header] = value

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
            self.watch.check()
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
                    if error.code == 404:
                        raise _NotThere(self.refused("it answers 404")) from None
                    if not left or not (error.code == 429 or error.code >= 500):
                        raise self.refused(f"it answers {error.code}") from None
                    wait_s = _retry_after_s(error.headers.get("Retry-After"), 2.0 ** (_TRIES - left - 1))
            except (OSError, ValueError, http.client.HTTPException) as error:
                if not left:
                    raise self.refused(_reason(error)) from None
                wait_s = 2.0 ** (_TRIES - left - 1)
            self._sleep(wait_s)
        self._answers += 1
        self.watch.tell("1 answer" if self._answers == 1 else f"{self._answers} answers")
        try:
            return msgspec.json.decode(data, type=answer)
        except msgspec.MsgspecError as error:
            raise self.refused(f"its answer has another form than we know ({error})") from None

    def _once(self, url: str, body: bytes | None) -> bytes:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310
        with _OPENER.open(request, timeout=self._timeout_s) as reply:
            data: bytes = reply.read(_LIMIT_BYTES + 1)
            missing = reply.length  # of what was announced; None: nothing was
        if len(data) > _LIMIT_BYTES:
            raise ValueError("its answer is larger than 64 MB")
        if missing:
            raise http.client.IncompleteRead(data, missing)
        return data

    def _sleep(self, seconds: float) -> None:
        if seconds >= 2:
            self.watch.tell(f"the service is busy, waiting {seconds:.0f} s")
        if self._sleep_s is not None:
            self._sleep_s(seconds)
            return
        import time

        while seconds > 0:  # in small steps: it may be called off meanwhile
            self.watch.check()
            time.sleep(min(_STEP_S, seconds))
            seconds -= _STEP_S


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "its answer was cut short"
    return str(getattr(error, "reason", error)) or type(error).__name__


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Our headers may hold a secret: they follow no redirect to another host."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        ours, theirs = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SameHost)


class _NotThere(ArgosyError):
    """The service answers 404."""

    def __init__(self, refused: ArgosyError) -> None:
        super().__init__(refused.code, refused.what, hint=refused.hint)


def _retry_after_s(header: Any, otherwise: float) -> float:
    try:
        return min(60.0, max(0.0, float(header)))
    except (TypeError, ValueError):
        return otherwise
