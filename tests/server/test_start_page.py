"""The start page: what it may do is written in its policy, and it is there for who asks with a browser."""

from __future__ import annotations

import base64
import hashlib
import re
import urllib.request

import pytest

from argosy.server.start_page import page
from argosy.testing.idle_server import IdleServer


def test_the_policy_allows_its_own_script_and_nothing_else() -> None:
    body, fields = page("'self' http://*.localhost:*")
    policy = dict(fields)[b"content-security-policy"].decode()
    text = body.decode()
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ") and "frame-ancestors 'none'" in policy
    assert "form-action 'self' http://*.localhost:*;" in policy
    assert "unsafe" not in policy and "require-trusted-types-for 'script'; trusted-types 'none'" in policy
    assert not re.search(r"\son\w+\s*=|\sstyle=", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|(src|href)=", text)
    assert len(body) < 32_000


def test_a_provider_is_offered_where_there_is_one() -> None:
    assert b"/login/sso" not in page("'self'")[0]
    body, fields = page("'self'", has_provider=True)
    assert b"<a class=button href=/login/sso>" in body and len(body) == int(dict(fields)[b"content-length"])


@pytest.mark.parametrize("path", ["/", "/?x=1"])
def test_it_is_served_to_browsers(path: str) -> None:
    with IdleServer(listen="127.0.0.1:0") as server, urllib.request.urlopen(server.address + path) as answer:
        assert answer.status == 200 and b"Sign in" in answer.read()
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
