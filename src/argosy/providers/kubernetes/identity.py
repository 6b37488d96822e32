"""Who we are to an API server: a token that is renewed, a certificate, or a program that makes either."""

from __future__ import annotations

import asyncio
import base64
import shutil
import ssl
import tempfile
from collections.abc import Mapping
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra import border
from argosy.model.ids import Clock
from argosy.providers.kubernetes.kubeconfig import Context, Plugin

_EARLY_MS: Final = 60_000  # credentials are made anew so long before they end
_FILE_MS: Final = 60_000
_JUST_MADE_MS: Final = 5_000  # many calls are refused at once: one of them renews
_PLUGIN_S: Final = 60.0


class _Status(msgspec.Struct, frozen=True):
    token: str = ""
    clientCertificateData: str = ""
    clientKeyData: str = ""
    expirationTimestamp: str | None = None


class _Credential(msgspec.Struct, frozen=True):
    status: _Status = _Status()


class Identity:
    """The headers and the TLS of one context. Programs are run when nothing they made is left."""

    def __init__(self, context: Context, environ: Mapping[str, str], clock: Clock) -> None:
        self._context, self._environ, self._clock = context, environ, clock
        self._made = _Status()
        self._made_ms, self._until_ms = 0, 0.0
        self._in_tls = ""
        self._making = asyncio.Lock()

    async def headers(self, *, again: bool = False) -> dict[str, str]:
        """`again`: the last ones were not accepted. Raises `CredentialsRejected`."""
        context = self._context
        if context.plugin is not None:
            made = await self._from_plugin(context.plugin, again=again)
            return {"authorization": f"Bearer {made.token}"} if made.token else {}
        if context.token_file:
            if self._is_old(again=again):
                self._keep(_Status(token=_read(context.token_file)), self._clock.now_ms() + _FILE_MS)
            return {"authorization": f"Bearer {self._made.token}"}
        if context.token:
            return {"authorization": f"Bearer {context.token}"}
        if context.basic:
            return {"authorization": "Basic " + base64.b64encode(context.basic.encode()).decode()}
        return {}

    async def _from_plugin(self, plugin: Plugin, *, again: bool) -> _Status:
        async with self._making:
            if self._is_old(again=again):
                made = await _run(plugin, self._context, self._environ)
                ends = made.expirationTimestamp
                self._keep(made, datetime.fromisoformat(ends).timestamp() * 1000 - _EARLY_MS if ends else inf)
            return self._made

    def _is_old(self, *, again: bool) -> bool:
        now_ms = self._clock.now_ms()
        return now_ms >= self._until_ms or (again and now_ms - self._made_ms > _JUST_MADE_MS)

    def _keep(self, made: _Status, until_ms: float) -> None:
        self._made, self._made_ms, self._until_ms = made, self._clock.now_ms(), until_ms

    def tls(self, kept: ssl.SSLContext | None) -> ssl.SSLContext:
        """`kept`: the last one, which is used again unless a program made another certificate."""
        context = self._context
        if kept is not None and self._made.clientCertificateData == self._in_tls:
            return kept
        self._in_tls = self._made.clientCertificateData
        trust = ssl.create_default_context(cadata=context.ca.decode("ascii") if context.ca else None)
        if not context.check_tls:
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        made = (self._made.clientCertificateData.encode(), self._made.clientKeyData.encode())
        cert, key = made if made[0] else (context.cert, context.key)
        if cert:  # Python takes a private key from a file alone
            with tempfile.NamedTemporaryFile(dir=self._environ.get("XDG_RUNTIME_DIR")) as file:
                file.write(cert + b"\n" + key)
                file.flush()
                trust.load_cert_chain(file.name)
        return trust


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise border.CredentialsRejected(f"the token in {path} cannot be read: {error}") from None


async def _run(plugin: Plugin, context: Context, environ: Mapping[str, str]) -> _Status:
    """What the program gives. Raises `CredentialsRejected` with what to do."""
    own = dict(environ) | dict(plugin.env)
    command = str(Path(plugin.folder) / plugin.command) if "/" in plugin.command else plugin.command
    found = shutil.which(command, path=own.get("PATH"))
    if found is None:
        hint = plugin.hint or f"install `{plugin.command}`, or put it on the PATH of the server"
        raise border.CredentialsRejected(
            f"the context {context.name} gets its credentials from `{plugin.command}`, which is not "
            f"installed here: {hint}"
        )
    info: dict[str, object] = {"apiVersion": plugin.version, "kind": "ExecCredential"}
    spec: dict[str, object] = {"interactive": False}
    if plugin.wants_cluster:
        ca = {"certificate-authority-data": base64.b64encode(context.ca).decode()} if context.ca else {}
        spec["cluster"] = {"server": context.server, **ca}
    own["KUBERNETES_EXEC_INFO"] = msgspec.json.encode(info | {"spec": spec}).decode()
    process = await asyncio.create_subprocess_exec(
        found,
        *plugin.args,
        env=own,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_PLUGIN_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise border.CredentialsRejected(
            f"`{plugin.command}` gave no credentials within {_PLUGIN_S:.0f} s: run it by hand, it may ask "
            "something"
        ) from None
    try:
        made = msgspec.json.decode(out, type=_Credential).status
    except msgspec.DecodeError:
        made = _Status()
    if process.returncode or not (made.token or made.clientCertificateData):
        said = " ".join(err.decode("utf-8", "replace").split())[-300:] or "it says nothing"
        raise border.CredentialsRejected(
            f"`{plugin.command}` gives no credentials for the context {context.name}: {said}; sign in with "
            "the tool of your cloud and try again"
        )
    return made
