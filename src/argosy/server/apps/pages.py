"""The few pages that the proxy answers by itself: the entrance, and why somebody is not let in."""

from __future__ import annotations

import base64
import hashlib
import html
from typing import Final

from argosy.gateway.exchange import Answer
from argosy.server.apps.rules import Refusal

_SCRIPT: Final = """\
const found = new URLSearchParams(location.hash.slice(1));
history.replaceState(null, "", location.pathname);
if (found.get("code")) {
  const form = document.createElement("form");
  form.method = "post";
  form.action = "/.argosy/enter";
  for (const name of ["code", "next"]) {
    const field = document.createElement("input");
    field.type = "hidden";
    field.name = name;
    field.value = found.get(name) || (name === "next" ? "/" : "");
    form.append(field);
  }
  document.body.append(form);
  form.submit();
} else {
  const text = "This address opens nothing by itself: `argosy session open` does.";
  document.getElementById("said").textContent = text;
}
"""
_STYLE: Final = (
    "body{font:16px system-ui,sans-serif;max-width:34rem;margin:20vh auto;padding:0 1rem;color:#1c2330;"
    "background:#f7f8fa}@media(prefers-color-scheme:dark){body{color:#e6e9ef;background:#14171c}}"
    "h1{font-size:1.25rem}code{background:#8882;padding:.1em .3em;border-radius:.3em}"
)


def csp_digest(text: str) -> str:
    """As a Content-Security-Policy names a script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_POLICY: Final = (
    f"default-src 'none'; script-src {csp_digest(_SCRIPT)}; style-src {csp_digest(_STYLE)}; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
FIELDS: Final = (
    f"content-security-policy: {_POLICY}\r\nx-content-type-options: nosniff\r\n"
    "referrer-policy: no-referrer\r\ncache-control: no-store\r\ncross-origin-opener-policy: same-origin\r\n"
).encode()


def _page(title: str, text: str, script: str = "") -> bytes:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{html.escape(title)}</h1><p id=said>{html.escape(text)}</p>"
        f"{f'<script>{script}</script>' if script else ''}\n"
    ).encode()


def entrance() -> Answer:
    """Takes the code from the part of the address that no server sees, and sends it as a form."""
    body = _page("Opening …", "One moment.", _SCRIPT)
    return Answer(status=200, body=body, fields=FIELDS, content_type=b"text/html; charset=utf-8")


def refused(refusal: Refusal, *, as_page: bool) -> Answer:
    if as_page:
        body = _page("Not open", refusal.text)
        return Answer(
            status=refusal.status, body=body, fields=FIELDS, content_type=b"text/html; charset=utf-8"
        )
    from argosy.gateway.exchange import refusal as as_json

    return as_json(refusal.status, refusal.code, refusal.text, fields=b"cache-control: no-store\r\n")
