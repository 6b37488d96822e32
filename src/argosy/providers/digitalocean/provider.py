"""Calls of the DigitalOcean API (v2): droplets, the key that opens them, sizes and the account."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How, Query
from argosy.infra.http_words import Said
from argosy.infra.machine_access import home_text
from argosy.infra.machine_images import asked_image
from argosy.infra.machine_vendor import MachineOrder, RestVendor, closed_offer, findings_of
from argosy.infra.machines import OURS, Machine, MachineState, mark_in_tags, tags_of
from argosy.infra.once import Once
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Offer
from argosy.model.rows import Claim
from argosy.providers.digitalocean import MANIFEST
from argosy.providers.digitalocean.wire import Account, Action, Droplet, Droplets, Sizes

URL: Final = "https://api.digitalocean.com"
_STATES: Final = {
    "new": MachineState.STARTING,
    "active": MachineState.RUNNING,
    "off": MachineState.STOPPED,
    "archive": MachineState.ENDED,
}
_ASKED_AFTER_S: Final = 20.0  # a droplet that is new for so long is asked what became of its order
_PAGE: Final = 200


class DigitalOcean(RestVendor):
    manifest = MANIFEST
    key_word = "token"
    place = "a region"
    fresh_s = 1.0
    end_command = "doctl compute droplet delete {id}"

    def __init__(self, setting: Setting, *, call_every_s: float = 0.25) -> None:
        super().__init__(setting, "DIGITALOCEAN_API_URL", URL, words, every_s=call_every_s, burst=40)
        self._keys: Once[str, str] = Once()  # our key -> its fingerprint, when the account has it

    def key(self) -> str:
        environ = self._setting.environ
        token = environ.get("DIGITALOCEAN_TOKEN") or environ.get("DIGITALOCEAN_ACCESS_TOKEN")
        return token or _doctl_token(home_text(environ, ".config/doctl/config.yaml"))

    async def check(self) -> Sequence[Diagnostic]:
        async def account() -> str:
            told = await self._account()
            if told.status == "locked":
                raise border.CredentialsRejected(
                    f"DigitalOcean has locked this account: {told.status_message or 'it says no more'}; "
                    "look at https://cloud.digitalocean.com/account/billing"
                )
            return f"the token is accepted; the account may have {told.droplet_limit} droplets"

        return await findings_of(MANIFEST, account)

    async def _account(self) -> Account:
        return await self._http.call("GET", "/v2/account", into=Account, under="account")

    async def _count(self) -> int:
        """All droplets of the account."""
        asks = [
            self._http.call("GET", "/v2/droplets", into=int, query=_one(kind), under="meta.total")
            for kind in ("droplets", "gpus")
        ]
        return sum(await asyncio.gather(*asks))

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Sizes that no region has now are closed, until the next look; all are for an account that has as
        many droplets as it may."""
        now_ms, limit = self._clock.now_ms(), (await self._account()).droplet_limit
        if await self._count() >= limit:
            why = f"the account has {limit} droplets, which is its limit"
            return [closed_offer(MANIFEST.name, "", why, now_ms)]
        pages = self._http.pages("/v2/sizes", into=Sizes, following=_following, query=[("per_page", _PAGE)])
        return [
            closed_offer(MANIFEST.name, each.slug, "no region of DigitalOcean has one now", now_ms)
            async for page in pages
            for each in page.sizes
            if not each.available or not each.regions
        ]

    async def prepare(self, order: MachineOrder) -> None:
        await self._our_key(order.opens)

    async def create(self, order: MachineOrder, index: int) -> str:
        claim = order.claim
        asked = {
            "name": order.name(index),
            "region": order.region,
            "size": order.kind,
            "image": _image(claim),
            # Without a key of the account the password of root is sent by mail, and has to be changed first.
            "ssh_keys": [await self._our_key(order.opens)],
            "user_data": order.user_data,
            "tags": tags_of(claim),
            "backups": False,
            "monitoring": False,
        }
        made = await self._http.call(
            "POST", "/v2/droplets", json=asked, into=int, scope=order.scope, under="droplet.id"
        )
        return str(made)

    async def _our_key(self, opens: str) -> str:
        return await self._keys.get(opens, lambda: self._make_key(opens))

    async def _make_key(self, opens: str) -> str:
        digest = hashlib.md5(base64.b64decode(opens.split()[1]), usedforsecurity=False).hexdigest()
        fingerprint = ":".join(digest[at : at + 2] for at in range(0, 32, 2))
        found = await self._http.find(f"/v2/account/keys/{fingerprint}", into=msgspec.Raw)
        if found is None:
            body = {"name": f"argosy-{digest[:8]}", "public_key": opens}
            await self._http.call("POST", "/v2/account/keys", json=body, into=msgspec.Raw)
        return fingerprint

    async def listed(self, region: str) -> Sequence[Machine]:
        """A listing without `type` does not show droplets with GPUs."""
        found: dict[int, Droplet] = {}
        for kind in (("tag_name", OURS), ("type", "gpus")):
            query: Query = [kind, ("per_page", _PAGE)]
            pages = self._http.pages("/v2/droplets", into=Droplets, following=_following, query=query)
            async for page in pages:
                found |= {each.id: each for each in page.droplets}
        machines = [await self._machine(each) for each in found.values()]
        return [each for each in machines if each is not None]

    async def _machine(self, told: Droplet) -> Machine | None:
        mark = mark_in_tags(told.name or "", told.tags or ())
        if mark is None:
            return None
        failed = told.status == "new" and await self._was_refused(told)
        return Machine(
            id=str(told.id),
            mark=mark,
            state=MachineState.FAILED if failed else _STATES.get(told.status or "", MachineState.STARTING),
            region=told.region.slug if told.region is not None else "",
            kind=told.size_slug or "",
            host=told.address("public"),
            ip=told.address("private") or told.address("public"),
            created=told.created_at or "",
            said="its creation failed" if failed else "",
            stays=failed,
        )

    async def _was_refused(self, told: Droplet) -> bool:
        """An order that is accepted may fail later: only its action tells."""
        if self._clock.now_ms() / 1000 - _seconds(told.created_at or "") < _ASKED_AFTER_S:
            return False
        path = f"/v2/droplets/{told.id}/actions"
        actions = await self._http.find(path, into=list[Action], under="actions")
        return any(each.type == "create" and each.status == "errored" for each in actions or ())

    async def delete(self, machine: Machine) -> None:
        await self._http.drop(f"/v2/droplets/{machine.id}")

    async def start(self, machine: Machine) -> None:
        """Somebody has switched it off. It costs the same, so Argosy lets none rest."""
        path, body = f"/v2/droplets/{machine.id}/actions", {"type": "power_on"}
        await self._http.send("POST", path, json=body, how=How(safe=True))


def _one(kind: str) -> Query:
    return [("type", kind), ("per_page", 1)]


def _following(page: Droplets | Sizes) -> Query | None:
    pages = page.links.pages if page.links is not None else None
    found = re.search(r"[?&]page=(\d+)", (pages.next if pages is not None else "") or "")
    return [("page", found[1])] if found else None


def _image(claim: Claim) -> str | int:
    """The slug or number that the task names; droplets with GPUs start with their drivers."""
    asked, kind = asked_image(claim), claim.choice.offer.shape.instance_type
    if asked:
        return int(asked) if asked.isdigit() else asked
    if not kind.startswith("gpu-"):
        return "ubuntu-24-04-x64"
    if "mi3" in kind:
        return "gpu-amd-base"
    return "gpu-h100x8-base" if re.search(r"x8\b", kind) else "gpu-h100x1-base"


def _seconds(stamp: str) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def words(said: Said) -> border.BorderError | None:
    """Almost everything is `unprocessable_entity`: its text decides."""
    what, text = f"DigitalOcean says: {said.words}", said.text.lower()
    if "droplet limit" in text:
        more = "https://cloud.digitalocean.com/account/team/droplet_limit_increase"
        return border.QuotaExceeded("droplets", "reached", f"{what}; ask for more at {more}")
    if "pending event" in text or "already in use on your account" in text:
        return border.Transient(what, 5)
    if said.status == 422 and re.search(r"not available|unavailable|restricted", text):
        return border.OutOfCapacity(said.scope, f"DigitalOcean has no {said.scope} now: {said.text}")
    if "locked" in text or "inactive" in text:
        return border.CredentialsRejected(f"{what}; look at https://cloud.digitalocean.com/account/billing")
    return None


def _doctl_token(text: str) -> str:
    """Of the context that `doctl` uses."""
    import yaml

    try:
        told = yaml.safe_load(text)
    except yaml.YAMLError:
        return ""
    if not isinstance(told, Mapping):
        return ""
    contexts, name = told.get("auth-contexts"), told.get("context") or "default"
    named = contexts.get(name) if isinstance(contexts, Mapping) else None
    return str((told.get("access-token") if name == "default" else None) or named or "")
