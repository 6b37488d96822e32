"""An identity provider of others in a process of its own: `oidc-provider` for Node, and a person who clicks.

`npm install oidc-provider`, and the folder `node_modules` that holds it. It listens on this machine only.
"""

from __future__ import annotations

import html
import http.client
import http.cookiejar
import os
import re
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

CLIENT_ID: Final = "argosy"
CLIENT_SECRET: Final = "s3cret-of-the-client"
_PROGRAM: Final = """
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
const [folder, client_id, client_secret, redirect_uri] = process.argv.slice(2);
const require = createRequire(folder + "/");
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id, client_secret, redirect_uris: [redirect_uri], response_types: ["code"],
      grant_types: ["authorization_code"], token_endpoint_auth_method: "client_secret_post" }],
    pkce: { required: () => true },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "preferred_username"],
      groups: ["groups"] },
    scopes: ["openid", "profile", "email", "groups"],
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com`,
      email_verified: true, name: id, preferred_username: id, groups: ["research"] }) }),
    features: { devInteractions: { enabled: true } },
    cookies: { keys: ["only of this test"] },
  });
  server.on("request", provider.callback());
  console.log(`READY ${issuer}`);
});
"""


class RealIdentityProvider:
    """Runs while the context lasts. `node_modules`: where `oidc-provider` is installed."""

    def __init__(self, node_modules: Path, redirect_uri: str) -> None:
        self._modules, self.redirect_uri = node_modules, redirect_uri
        self.issuer = ""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="argosy-provider-")
        program = Path(self._folder.name) / "provider.mjs"
        program.write_text(_PROGRAM)
        line = ["node", str(program), str(self._modules.parent), CLIENT_ID, CLIENT_SECRET, self.redirect_uri]
        env = {"PATH": os.environ.get("PATH", ""), "HOME": self._folder.name}
        self._process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        for said in self._process.stdout:
            if said.startswith("READY "):
                self.issuer = said.split()[1]
                return self
        raise RuntimeError(f"the provider did not start: {self._process.stderr.read()[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


class _StopAt(urllib.request.HTTPRedirectHandler):
    """Follows redirects but the last one, which is for the browser of the test."""

    def __init__(self, stop: str) -> None:
        self._stop = stop

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if newurl.startswith(self._stop):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


class Person:
    """Somebody with a browser, who signs in at the provider and agrees."""

    def __init__(self, provider: RealIdentityProvider, name: str) -> None:
        self._stop, self.name = provider.redirect_uri, name
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(_StopAt(self._stop), jar)

    def go(self, address: str) -> dict[str, str]:
        """From the provider's first page to what it sends back in the query."""
        place, page = self._open(address)
        for _ in range(6):
            if place.startswith(self._stop):
                return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(place).query))
            action = re.search(r'<form[^>]*action="([^"]+)"', page)
            if action is None:
                raise RuntimeError(f"no form at {place}: {page[:500]}")
            fields = {
                name: html.unescape(value)
                for name, value in re.findall(
                    r'<input[^>]*type="hidden"[^>]*name="([^"]+)" value="([^"]*)"', page
                )
            }
            if 'name="login"' in page:
                fields |= {"login": self.name, "password": "any"}
            target = urllib.parse.urljoin(place, html.unescape(action[1]))
            place, page = self._open(target, fields)
        raise RuntimeError("the provider asks and asks")

    def _open(self, address: str, form: Mapping[str, str] | None = None) -> tuple[str, str]:
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        try:
            with self._opener.open(address, data, timeout=30) as reply:
                found: tuple[str, str] = (reply.geturl(), reply.read().decode())
                return found
        except urllib.error.HTTPError as error:
            with error:
                place = error.headers.get("location", "")
                if error.code in (302, 303) and place.startswith(self._stop):
                    return place, ""
                raise RuntimeError(f"{error.code} at {address}: {error.read()[:500]!r}") from None
