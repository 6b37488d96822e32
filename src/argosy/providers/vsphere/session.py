"""A session with a vCenter: log-in, calls, what its errors mean (Automation REST API, 7.0 U3 and later)."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from argosy.infra import border
from argosy.infra.http_json import Ask, How, HttpJson, Service
from argosy.infra.http_words import Said
from argosy.infra.provider import Setting
from argosy.providers.vsphere import MANIFEST

_HEADER: Final = "vmware-api-session-id"
_FIELDS: Final = {"VSPHERE_SERVER": "name", "VSPHERE_USER": "username", "VSPHERE_PASSWORD": "password"}


class Session:
    """Calls of one vCenter."""

    def __init__(self, setting: Setting) -> None:
        self._environ = setting.environ
        self._told = {name: _told(setting.environ, name) for name in _FIELDS}
        server = self._told["VSPHERE_SERVER"]
        base = server if server.startswith("http") else f"https://{server}"
        service = Service(title=MANIFEST.title, sign_in=MANIFEST.how_to_sign_in, words=words)
        ca_file = setting.environ.get("VSPHERE_CA_FILE")
        tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
        self.http = HttpJson(f"{base}/api", service, clock=setting.clock, sign=self._sign, tls=tls)
        self._door = HttpJson(f"{base}/api", service, clock=setting.clock, sign=self._basic, tls=tls)
        self._id = ""
        self._opening = asyncio.Lock()

    async def _sign(self, ask: Ask) -> Mapping[str, str]:
        async with self._opening:
            if ask.again or not self._id:
                self._id = await self._door.call("POST", "/session", into=str, how=How(safe=True))
        return {_HEADER: self._id}

    async def _basic(self, ask: Ask) -> Mapping[str, str]:
        missing = [name for name, value in self._told.items() if not value]
        if missing:
            what = f"{MANIFEST.title} lacks {', '.join(missing)}"
            where = "~/.vsphere/credential.yaml does not have it"
            raise border.CredentialsRejected(f"{what}, and {where}; {MANIFEST.how_to_sign_in}")
        user = f"{self._told['VSPHERE_USER']}:{self._told['VSPHERE_PASSWORD']}"
        return {"authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}

    async def close(self) -> None:
        await self.http.close()
        await self._door.close()


def _told(environ: Mapping[str, str], name: str) -> str:
    """From the environment, else of the first vCenter in the file."""
    if environ.get(name):
        return environ[name]
    path = Path(environ.get("HOME", "/nonexistent")) / ".vsphere/credential.yaml"
    try:
        text = path.read_text()
    except OSError:
        return ""
    found = re.search(rf"^[\s-]*{_FIELDS[name]}\s*:\s*['\"]?([^'\"\n]+?)['\"]?\s*$", text, re.MULTILINE)
    return found[1] if found else ""


def words(said: Said) -> border.BorderError | None:
    """Types of errors of the API."""
    what = f"{said.title} says: {said.words}"
    match said.code:
        case "UNABLE_TO_ALLOCATE_RESOURCE":
            return border.OutOfCapacity(said.scope, f"{said.title} has no room for {said.scope}: {said.text}")
        case "RESOURCE_BUSY" | "RESOURCE_IN_USE" | "SERVICE_UNAVAILABLE" | "TIMED_OUT" | "CONCURRENT_CHANGE":
            return border.Transient(what, said.after_s or 5)
        case "RESOURCE_INACCESSIBLE":
            return border.Transient(what, said.after_s or 30)
        case "UNAUTHORIZED":
            fix = "give the user the rights that providers/vsphere/README.md lists"
            return border.CredentialsRejected(f"{what}; {fix}")
        case "QUOTA_EXCEEDED" | "LICENSE_NOT_AVAILABLE":
            return border.QuotaExceeded(said.scope or "machines", "reached", what)
    return None
