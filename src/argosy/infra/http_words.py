"""What the refusals of web APIs mean: one table for all clouds, which each driver's own words come before."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from argosy.infra import border

_SKEW_S: Final = 60.0  # a clock that is off by more than this makes signatures and tokens invalid
_TEXT_MAX: Final = 400
_CAPACITY: Final = re.compile(
    r"capacity|exhausted|out of stock|sold out|stockout|no longer available|not enough resources"
    r"|allocationfailed|skunotavailable|out of host|insufficient.resources|no available",
    re.IGNORECASE,
)
_QUOTA: Final = re.compile(r"quota|limit.?exceeded|limit reached|exceeds your|limit of", re.IGNORECASE)
_MONEY: Final = re.compile(r"billing|suspended|payment|balance|insufficient (funds|credit)", re.IGNORECASE)
_BUSY: Final = re.compile(
    r"in progress|conflict|locked|try again|rate.?limit|too many requests", re.IGNORECASE
)
_MARKUP: Final = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A reply that is a refusal, as far as it could be read."""

    title: str  # of the place: `Lambda`
    sign_in: str  # what makes credentials
    status: int
    code: str  # the API's own code; "": it gives none
    text: str  # its words
    field: str = ""  # the part of the request that it names
    scope: str = ""  # what was asked for, for an error that says that there is none
    after_s: float = 0.0  # so long it wants to be left alone
    skew_s: float = 0.0  # its clock less ours
    is_page: bool = False  # a web page instead of an answer

    @property
    def words(self) -> str:
        """Its own words, for people."""
        said = self.text or self.code or f"status {self.status}"
        return said if not self.code or self.code in said else f"{said} ({self.code})"


#: A driver's own reading of a refusal; None: the common one holds.
Words = Callable[[Said], border.BorderError | None]


def said_of(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    title: str,
    sign_in: str,
    scope: str,
    now_s: float,
) -> Said:
    """Reads the shapes of error in use: `error: {code, message}`, `errors: [...]`, `message`, `detail`."""
    code, text, field = "", "", ""
    is_page = bool(_MARKUP.match(body[:64])) or "text/html" in headers.get("content-type", "")
    is_page = is_page or 300 <= status < 400  # to a page where people sign in
    if not is_page:
        try:
            code, text, field = _read(msgspec.json.decode(body))
            code = "" if code == str(status) else code  # it says the same again
        except msgspec.DecodeError:
            text = body[:_TEXT_MAX].decode("utf-8", "replace").strip()
    return Said(
        title=title,
        sign_in=sign_in,
        status=status,
        code=code,
        text=text[:_TEXT_MAX],
        field=field,
        scope=scope,
        after_s=_after(headers, now_s),
        skew_s=_skew(headers, now_s),
        is_page=is_page,
    )


def _read(body: Any) -> tuple[str, str, str]:  # Any: JSON of whoever
    if isinstance(body, list) and body:
        return _read(body[0])
    if not isinstance(body, dict):
        return "", body if isinstance(body, str) else "", ""
    for key in ("error", "errors", "Error", "fault", "detail"):
        inner = body.get(key)
        if isinstance(inner, (dict, list)) and inner:
            code, text, field = _read(inner)
            if code or text:
                return code, text, field
        if isinstance(inner, str) and inner and key != "detail":
            said = _first(body, "message", "error_description", "detail", "msg")
            return (inner, said, "") if said else ("", inner, "")
    told = body.get("messages")
    if "error_type" in body and isinstance(told, list):  # VMware's
        said = "; ".join(str(each.get("default_message", "")) for each in told if isinstance(each, dict))
        return _first(body, "error_type"), said, ""
    code, text = (
        _first(body, "code", "errorCode", "error_code", "error_reason", "status", "id", "reason"),
        _first(body, "message", "errorMessage", "detail", "msg", "error_description", "title"),
    )
    if not text and code:
        text, code = ("", code) if " " not in code else (code, "")
    return code, text, _first(body, "field", "target", "param", "parameter")


def _first(body: Mapping[str, Any], *keys: str) -> str:
    found = (body.get(key) for key in keys)
    told = (str(each) for each in found if isinstance(each, (str, int)) and not isinstance(each, bool))
    return next((each for each in told if each), "")


def _after(headers: Mapping[str, str], now_s: float) -> float:
    text = headers.get("retry-after", "")
    if text.replace(".", "", 1).isdigit():
        return float(text)
    if text:
        stamp = email.utils.parsedate_to_datetime(text) if "," in text else None
        return max(0.0, stamp.timestamp() - now_s) if stamp is not None else 0.0
    reset = headers.get("ratelimit-reset") or headers.get("x-ratelimit-reset") or ""
    if headers.get("ratelimit-remaining", headers.get("x-ratelimit-remaining")) == "0" and reset.isdigit():
        return max(0.0, float(reset) - now_s) if float(reset) > 1e9 else float(reset)
    return 0.0


def _skew(headers: Mapping[str, str], now_s: float) -> float:
    try:
        return email.utils.parsedate_to_datetime(headers["date"]).timestamp() - now_s
    except (KeyError, ValueError, TypeError):
        return 0.0


def error_of(said: Said, words: Words | None = None) -> border.BorderError:
    """The border's error for a refusal: what the driver reads in it, else what its status and words say."""
    if said.status == 401 or (said.status == 403 and abs(said.skew_s) > _SKEW_S):
        return _who(said)
    own = words(said) if words is not None and not said.is_page else None
    if isinstance(own, border.CredentialsRejected) and abs(said.skew_s) > _SKEW_S:
        return _who(said)
    return own if own is not None else _common(said)


def _common(said: Said) -> border.BorderError:
    status, text = said.status, f"{said.code} {said.text}"
    what = f"{said.title} says: {said.words}"
    if said.is_page and status not in (401, 402, 403):
        return border.Transient(
            f"{said.title} answers with a web page instead of data (status {status}): a proxy in between, a "
            "wrong address, or maintenance?",
            said.after_s or 30,
        )
    if status == 429 or (status == 403 and re.search(r"rate.?limit", text, re.IGNORECASE)):
        wait = f", for {said.after_s:.0f} s more" if said.after_s else ""
        return border.Transient(f"{said.title} wants fewer calls{wait}: {said.words}", said.after_s or 10)
    if status == 402 or (status in (400, 403, 422) and _MONEY.search(text)):
        return border.QuotaExceeded("balance", "reached", f"{what}; look at the account's billing page")
    if _CAPACITY.search(text) and status != 404:
        return border.OutOfCapacity(
            said.scope or said.title, f"{said.title} has no {said.scope or 'room'}: {said.words}"
        )
    if _QUOTA.search(text):
        return border.QuotaExceeded(
            said.scope or "machines", _number(text), f"{what}; ask {said.title} for more, or use less"
        )
    if status == 403:
        return border.CredentialsRejected(
            f"{said.title} does not let these credentials do that: {said.words}"
        )
    if status in (408, 425) or status >= 500 or (status == 409 and _BUSY.search(text)):
        return border.Transient(what, said.after_s or 5)
    return border.RequestRefused(said.field or "request", what)


def _who(said: Said) -> border.BorderError:
    if abs(said.skew_s) > _SKEW_S:
        ahead = "behind" if said.skew_s > 0 else "ahead of"
        return border.CredentialsRejected(
            f"{said.title} does not accept the credentials ({said.words}), and this machine's clock is "
            f"{abs(said.skew_s) / 60:.0f} minutes {ahead} its clock: set it, for example with "
            "`timedatectl set-ntp true`"
        )
    return border.CredentialsRejected(
        f"{said.title} does not accept the credentials: {said.words}; {said.sign_in}"
    )


def _number(text: str) -> str:
    found = re.search(r"(?:limit|quota|maximum)[^0-9]{0,40}(\d+)", text, re.IGNORECASE)
    return found[1] if found else "reached"
