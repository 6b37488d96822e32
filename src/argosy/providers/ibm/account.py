"""An account of IBM Cloud: its API key, tokens made of it, and calls to the VPC service of a region."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Final, TypeVar

import msgspec

from argosy.infra import border
from argosy.infra.http_json import Form, How, HttpJson, Query, Service
from argosy.infra.http_words import Said
from argosy.infra.machine_access import Bearer, Token, home_text, lacks
from argosy.infra.provider import Setting
from argosy.providers.ibm import MANIFEST

T = TypeVar("T")
VERSION: Final = "2026-10-01"  # of the API, as every call names it
REGIONS: Final = (
    "au-syd", "br-sao", "ca-tor", "eu-de", "eu-es", "eu-gb", "jp-osa", "jp-tok", "us-east", "us-south",
)  # fmt: skip


class _Token(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: int


class Reason(msgspec.Struct, frozen=True):
    code: str
    message: str = ""


class _Link(msgspec.Struct, frozen=True):
    href: str


class Account:
    def __init__(self, setting: Setting) -> None:
        self._environ, self._clock = setting.environ, setting.clock
        self._clients: dict[str, HttpJson] = {}
        self._bearer = Bearer(self._new_token, setting.clock, early_s=300.0)
        self._iam = self._client("https://iam.cloud.ibm.com", "iam", signs=False)

    @property
    def group(self) -> str:
        return self._environ.get("IBMCLOUD_RESOURCE_GROUP") or _in_file(self._environ, "resource_group_id")

    def service(self, region: str) -> HttpJson:
        if region not in self._clients:
            self._clients[region] = self._client(f"https://{region}.iaas.cloud.ibm.com", region, signs=True)
        return self._clients[region]

    def _client(self, base: str, name: str, *, signs: bool) -> HttpJson:
        elsewhere = self._environ.get("IBMCLOUD_API_URL")
        return HttpJson(
            f"{elsewhere}/{name}" if elsewhere else base,
            Service(title=MANIFEST.title, sign_in=MANIFEST.how_to_sign_in, words=words),
            clock=self._clock,
            sign=self._bearer.sign if signs else None,
        )

    async def _new_token(self) -> Token:
        key = self._environ.get("IBMCLOUD_API_KEY") or _in_file(self._environ, "iam_api_key")
        if not key:
            raise lacks(MANIFEST, "key")
        asked = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": key}
        told = await self._iam.call(
            "POST", "/identity/token", json=Form(fields=asked), into=_Token, how=How(safe=True)
        )
        return Token(told.access_token, told.expires_in)

    def query(self, *more: tuple[str, str | int]) -> Query:
        return [("version", VERSION), ("generation", 2), *more]

    async def call(
        self, region: str, method: str, path: str, *, into: type[T], json: object = None, scope: str = ""
    ) -> T:
        http = self.service(region)
        return await http.call(method, f"/v1{path}", query=self.query(), json=json, into=into, scope=scope)

    async def rows(self, region: str, path: str, into: type[T], *more: tuple[str, str]) -> AsyncIterator[T]:
        """Items of a listing, which is called as the last part of its path."""
        http, start, field = self.service(region), "", path.rpartition("/")[2]
        while True:
            follow = [("start", start)] if start else []
            query = self.query(("limit", 100), *more, *follow)
            page = await http.call("GET", f"/v1{path}", query=query, into=dict[str, msgspec.Raw])
            for each in msgspec.json.decode(page[field], type=list[into]):  # type: ignore[valid-type]
                yield each
            if "next" not in page:
                return
            start = _start_in(msgspec.json.decode(page["next"], type=_Link).href)

    async def close(self) -> None:
        for client in (self._iam, *self._clients.values()):
            await client.close()


def _start_in(href: str) -> str:
    found = re.search(r"[?&]start=([^&]+)", href)
    return found[1] if found else ""


def _in_file(environ: Mapping[str, str], name: str) -> str:
    text = home_text(environ, ".ibm/credentials.yaml")
    found = re.search(rf"^\s*{name}\s*:\s*['\"]?([^'\"\s]+)", text, re.MULTILINE)
    return found[1] if found else ""


def words(said: Said) -> border.BorderError | None:
    """Codes of IBM Cloud that say more than their status."""
    what = f"IBM Cloud says: {said.words}"
    code = said.code.lower()
    if "quota" in code:
        fix = "ask for more in the console, under Quotas"
        return border.QuotaExceeded(said.scope or "machines", "reached", f"{what}; {fix}")
    if "capacity" in code:
        return border.OutOfCapacity(said.scope, f"IBM Cloud has no {said.scope} now: {said.text}")
    if code in ("bxnim0415e", "bxnim0404e"):  # the key was deleted, or never was
        return border.CredentialsRejected(f"{what}; {MANIFEST.how_to_sign_in}")
    if code == "not_authorized":
        fix = "give the key's owner the role Editor on VPC Infrastructure Services"
        return border.CredentialsRejected(f"{what}; {fix}")
    return None
