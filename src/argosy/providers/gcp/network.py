"""The network that machines join, and the rules that let ssh and each other in.

A rule is made once for a network and stays: it costs nothing. It holds for machines with a network tag of
ours, so no other machine of the project is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from argosy.infra import border
from argosy.providers.gcp.account import Account
from argosy.providers.gcp.launching import Site
from argosy.providers.gcp.wire import Firewall, Network, Subnet, last
from argosy.providers.gcp.wishes import Wishes

TAG: Final = "argosy"  # network tag of our machines
_DEFAULT: Final = "default"
_NAME_MAX: Final = 63
_V1: Final = "/compute/v1/"


class Networks:
    """Networks of a project. `ssh_from`: who may reach machines by ssh."""

    def __init__(self, account: Account, ssh_from: str) -> None:
        self._account, self._ssh_from = account, ssh_from
        self._open: set[str] = set()  # rules that are there
        self._sites: dict[tuple[str, tuple[str, ...], str], tuple[str, tuple[str, ...]]] = {}

    async def site(self, wishes: Wishes) -> Site:
        """Where an order's machines go. Raises `RequestRefused` for a network that does not exist."""
        key = (wishes.network, wishes.subnets, wishes.region)
        if key not in self._sites:
            self._sites[key] = await self._found(wishes)
        network, subnets = self._sites[key]
        if wishes.tags:  # rules of one's own
            return Site(network=network, subnets=subnets, tags=wishes.tags)
        tags = [TAG]
        await self._rule(_named("argosy-ssh", network), network, self._ssh_rule())
        await self._rule(_named("argosy-inside", network), network, _INSIDE)
        if wishes.ports:
            tag = "argosy-ports-" + hashlib.sha256(" ".join(wishes.ports).encode()).hexdigest()[:12]
            await self._rule(_named(tag, network), network, _ports_rule(wishes.ports, tag))
            tags.append(tag)
        return Site(network=network, subnets=subnets, tags=tuple(tags))

    async def default(self) -> str:
        """For `check`: in words. Raises `RequestRefused`."""
        await self._network(_DEFAULT)
        return "the network `default` is there"

    async def _found(self, wishes: Wishes) -> tuple[str, tuple[str, ...]]:
        subnets = [await self._subnet(each, wishes) for each in wishes.subnets]
        if subnets and not wishes.network:
            return _path(subnets[0].network), tuple(_path(each.self_link) for each in subnets)
        network = await self._network(wishes.network or _DEFAULT)
        path = _path(network.self_link)
        for each in subnets[:1]:
            if _path(each.network) != path:
                raise border.RequestRefused(
                    "networking",
                    f"the subnet `{each.name}` is not of the network `{network.name}`, but of "
                    f"`{last(each.network)}`",
                )
        if subnets or network.auto_create_subnetworks:
            return path, tuple(_path(each.self_link) for each in subnets)
        here = [each for each in network.subnetworks if f"/regions/{wishes.region}/" in each]
        if not here:
            regions = sorted({each.split("/regions/")[1].split("/")[0] for each in network.subnetworks})
            raise border.RequestRefused(
                "networking",
                f"the network `{network.name}` has no subnet in {wishes.region}; it has some in: "
                f"{', '.join(regions) or 'no region'}",
            )
        return path, (_path(here[0]),)

    async def _network(self, name: str) -> Network:
        found = await self._account.find(_whole(name, "global/networks"), Network)
        if found is None:
            raise border.RequestRefused(
                "networking",
                f"there is no network `{name}` in project {await self._account.credentials.project()}; name "
                "one of `gcloud compute networks list` in `networking: {vpc_name: NAME}`, or make it: "
                f"`gcloud compute networks create {last(name)} --subnet-mode=auto`",
            )
        return found

    async def _subnet(self, name: str, wishes: Wishes) -> Subnet:
        where = f"regions/{wishes.region}/subnetworks"
        found = await self._account.find(_whole(name, where), Subnet)
        if found is None:
            raise border.RequestRefused(
                "networking",
                f"there is no subnet `{name}` in {wishes.region}; `gcloud compute networks subnets list "
                f"--regions {wishes.region}` shows what there is",
            )
        return found

    def _ssh_rule(self) -> dict[str, Any]:
        return {
            "sourceRanges": [self._ssh_from],
            "targetTags": [TAG],
            "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
        }

    async def _rule(self, name: str, network: str, rule: Mapping[str, Any]) -> None:
        """Make a rule when it is not there. Who may not see or make rules relies on those that others
        made."""
        if f"{network}/{name}" in self._open:
            return
        body = {"name": name, "network": network, "direction": "INGRESS", "priority": 1000, **rule}
        project = "/".join(network.split("/")[:2])
        try:
            found = await self._account.find(f"{project}/global/firewalls/{name}", Firewall)
            if found is None:
                operation = await self._account.begin("POST", f"{project}/global/firewalls", name, body)
                await self._account.finish(f"{project}/global", operation, name)
        except border.CredentialsRejected as error:
            if "permission" not in str(error):
                raise
        except border.RequestRefused as error:
            if "already exists" not in str(error):
                raise
        self._open.add(f"{network}/{name}")


_INSIDE: Final[Mapping[str, Any]] = {
    "sourceTags": [TAG],
    "targetTags": [TAG],
    "allowed": [{"IPProtocol": "all"}],
}


def _ports_rule(ports: Sequence[str], tag: str) -> dict[str, Any]:
    named = [port.replace(" ", "") for port in ports]
    return {
        "sourceRanges": ["0.0.0.0/0"],
        "targetTags": [tag],
        "allowed": [{"IPProtocol": "tcp", "ports": named}],
    }


def _named(name: str, network: str) -> str:
    """Names of rules are unique in a project, and have 63 characters at most."""
    whole = f"{name}-{last(network)}"
    if len(whole) <= _NAME_MAX:
        return whole
    return f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def _whole(name: str, where: str) -> str:
    """`name`, `project/name` or a whole path, as a path.

    >>> _whole("lab", "global/networks"), _whole("host/lab", "global/networks")
    ('global/networks/lab', 'projects/host/global/networks/lab')
    """
    if name.startswith("projects/"):
        return name
    project, _, rest = name.rpartition("/")
    return f"projects/{project}/{where}/{rest}" if project else f"{where}/{name}"


def _path(url: str) -> str:
    """A URL of Compute Engine as a path: `projects/p/global/networks/default`."""
    return url.partition(_V1)[2] or url
