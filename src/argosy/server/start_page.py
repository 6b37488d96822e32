"""The start page at `/`: sign in, my sessions, start, open, share, rest, end. One page without a framework.

It is a client like any other: it calls the API and has no rights of its own. Whatever it shows it shows as
text. Its parts are the files beside this one; they travel in one answer, whose policy names them by digest.
"""

from __future__ import annotations

import functools
from pathlib import Path

from argosy.server.apps.pages import csp_digest

_SSO = "<a class=button href=/login/sso>Sign in through your organisation</a>"


def _part(kind: str) -> str:
    return Path(__file__).with_suffix(kind).read_text(encoding="utf-8")


@functools.cache
def page(apps: str, *, has_provider: bool = False) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The page and the fields of its answer. `apps`: hosts of apps, to which it may send forms;
    `has_provider`: people may sign in through an identity provider, too."""
    style, script = _part(".css"), _part(".js")
    inside = _part(".html").replace("SSO", _SSO if has_provider else "", 1)
    body = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Argosy</title>"
        f'<meta name=viewport content="width=device-width"><style>{style}</style>\n{inside}'
        f"<script>{script}</script>\n"
    ).encode()
    policy = (
        f"default-src 'none'; script-src {csp_digest(script)}; style-src {csp_digest(style)}; "
        f"connect-src 'self'; form-action {apps}; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    fields = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode()),
        (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
        (b"cache-control", b"no-cache"),
        (b"content-length", str(len(body)).encode()),
    ]
    return body, fields
