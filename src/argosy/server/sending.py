"""Telling people: one message by a webhook, Slack or e-mail. Blocks; called in a thread."""

from __future__ import annotations

import hashlib
import hmac
import smtplib
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Final
from urllib.parse import urlsplit

import msgspec

from argosy.server.channels import Smtp

TIMEOUT_S: Final = 10.0
_SLACK: Final = ("hooks.slack.com", "hooks.slack-gov.com")


class NotSent(Exception):
    """It was not taken. The text names no address: that may be a secret. `for_good`: never try again."""

    def __init__(self, text: str, *, for_good: bool = False) -> None:
        super().__init__(text)
        self.for_good = for_good


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is told: also the JSON that a webhook gets."""

    delivery: int  # the same for every repetition
    event: str  # succeeded, failed, ...
    code: str  # of the event, in detail
    at_ms: int
    job: str  # its number, as commands take it
    id: str
    name: str
    project: str
    user: str
    text: str

    @property
    def subject(self) -> str:
        return f"Argosy: job {self.job} `{self.name}` {self.event}"


def send(to: str, secret: str, message: Message, smtp: Smtp | None) -> None:
    """Raises NotSent."""
    if "://" not in to and "@" in to:
        _mail(to, message, smtp)
        return
    url = to.removeprefix("slack+")
    if urlsplit(url).scheme not in ("http", "https"):
        raise NotSent("it is neither a URL nor an e-mail address", for_good=True)
    if url is not to or urlsplit(url).hostname in _SLACK:
        detail = f"\n{message.text}" if message.text else ""
        _post(url, msgspec.json.encode({"text": message.subject + detail}), {})
        return
    body = msgspec.json.encode(message)
    headers = {"X-Argosy-Event": message.event, "X-Argosy-Delivery": str(message.delivery)}
    if secret:
        headers["X-Argosy-Signature"] = sign(secret, body)
    _post(url, body, headers)


def sign(secret: str, body: bytes) -> str:
    """HMAC-SHA256 of the body, as the header says it.

    >>> sign("s", b"{}")[:17]
    'sha256=143ca8d517'
    """
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    given = {"Content-Type": "application/json", "User-Agent": "argosy", **headers}
    try:
        # The scheme is http or https: `send` looked.
        request = urllib.request.Request(url, data=body, headers=given, method="POST")  # noqa: S310
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(request, timeout=TIMEOUT_S) as reply:
            reply.read(1024)
    except urllib.error.HTTPError as error:
        final = 400 <= error.code < 500 and error.code not in (408, 425, 429)
        raise NotSent(f"it answered {error.code}", for_good=final) from None
    except ValueError:
        raise NotSent("the URL cannot be read", for_good=True) from None
    except OSError as error:  # URLError is one
        why = getattr(error, "reason", error)
        raise NotSent(f"it cannot be reached: {type(why).__name__}") from None


def _mail(to: str, message: Message, smtp: Smtp | None) -> None:
    if smtp is None:
        raise NotSent("the server has no `smtp` in its notify.yaml", for_good=True)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = smtp.sender, to, message.subject
    mail["Message-ID"] = f"<{message.delivery}.{message.id}@argosy>"
    mail.set_content(message.text or message.subject)
    try:
        with smtplib.SMTP(smtp.host, smtp.port, timeout=TIMEOUT_S) as server:
            server.ehlo()
            if smtp.starttls and server.has_extn("starttls"):
                server.starttls()
                server.ehlo()
            if smtp.user:
                server.login(smtp.user, smtp.password)
            server.send_message(mail)
    except smtplib.SMTPRecipientsRefused:
        raise NotSent("the mail server refuses the recipient", for_good=True) from None
    except smtplib.SMTPAuthenticationError:
        raise NotSent("the mail server refuses user or password") from None
    except (smtplib.SMTPException, OSError) as error:
        raise NotSent(f"the mail server does not take it: {type(error).__name__}") from None
