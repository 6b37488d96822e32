"""Networks, rules of the firewall and placement policies of the fake of Compute Engine."""

from __future__ import annotations

from argosy.testing.fake_cloud import Ask, route
from argosy.testing.fake_gcp_account import BASE, PATH, PROJECT, FakeGcpAccount
from argosy.testing.fake_gcp_words import Firewall, Policy


class FakeGcpNetwork(FakeGcpAccount):
    def begin(self) -> None:
        super().begin()
        self.networks: dict[str, dict[str, str]] = {"default": {}, "lab": {"us-central1": "gpu"}}
        self.firewalls: dict[str, Firewall] = {}
        self.policies: dict[str, Policy] = {}  # `region/name`

    @route("GET", PATH + "/global/networks/{name}")
    def network(self, ask: Ask[None]) -> object:
        name = ask.parts["name"]
        path = f"projects/{ask.parts['project']}/global/networks/{name}"
        if name not in self.networks:
            raise self._missing(path)
        subnets = [
            f"{BASE}/projects/{PROJECT}/regions/{region}/subnetworks/{subnet}"
            for region, subnet in self.networks[name].items()
        ]
        told = {"name": name, "selfLink": f"{BASE}/{path}", "subnetworks": subnets}
        return {**told, "autoCreateSubnetworks": not subnets}

    @route("GET", PATH + "/regions/{region}/subnetworks/{name}")
    def subnetwork(self, ask: Ask[None]) -> object:
        region, name = ask.parts["region"], ask.parts["name"]
        path = f"projects/{ask.parts['project']}/regions/{region}/subnetworks/{name}"
        for network, subnets in self.networks.items():
            if subnets.get(region) == name:
                link = f"{BASE}/projects/{PROJECT}/global/networks/{network}"
                return {"name": name, "network": link, "selfLink": f"{BASE}/{path}"}
        raise self._missing(path)

    @route("GET", PATH + "/global/firewalls/{name}")
    def firewall(self, ask: Ask[None]) -> object:
        found = self.firewalls.get(ask.parts["name"])
        if found is None:
            raise self._missing(f"projects/{PROJECT}/global/firewalls/{ask.parts['name']}")
        return found

    @route("POST", PATH + "/global/firewalls", body=Firewall, query=("requestId",))
    def add_firewall(self, ask: Ask[Firewall]) -> object:
        if ask.body.name in self.firewalls:
            path = f"projects/{PROJECT}/global/firewalls/{ask.body.name}"
            raise self.error(409, "alreadyExists", f"The resource '{path}' already exists")
        self.firewalls[ask.body.name] = ask.body
        return self._operation(ask, "global", [])

    @route("POST", PATH + "/regions/{region}/resourcePolicies", body=Policy, query=("requestId",))
    def add_policy(self, ask: Ask[Policy]) -> object:
        key = f"{ask.parts['region']}/{ask.body.name}"
        if key in self.policies:
            raise self.error(409, "alreadyExists", f"The resource '{key}' already exists")
        self.policies[key] = ask.body
        return self._operation(ask, f"regions/{ask.parts['region']}", [])

    @route("GET", PATH + "/regions/{region}/resourcePolicies/{name}")
    def policy(self, ask: Ask[None]) -> object:
        found = self.policies.get(f"{ask.parts['region']}/{ask.parts['name']}")
        if found is None:
            raise self._missing(f"projects/{PROJECT}/regions/{ask.parts['region']}/resourcePolicies/x")
        return found

    @route("DELETE", PATH + "/regions/{region}/resourcePolicies/{name}", query=("requestId",))
    def drop_policy(self, ask: Ask[None]) -> object:
        key = f"{ask.parts['region']}/{ask.parts['name']}"
        if key not in self.policies:
            raise self._missing(f"projects/{PROJECT}/regions/{ask.parts['region']}/resourcePolicies/x")
        for each in self.shown():
            told = each.extra.get("order")
            if told is not None and any(name.endswith(ask.parts["name"]) for name in told.resource_policies):
                text = "The resource_policy resource is already being used"
                raise self.error(400, "resourceInUseByAnotherResource", text)
        del self.policies[key]
        return self._operation(ask, f"regions/{ask.parts['region']}", [])
