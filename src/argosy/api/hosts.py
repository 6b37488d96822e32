"""Endpoints of hosts that people name: examine, add, list, close and remove them."""

from __future__ import annotations

from argosy.api.endpoint import Done, Reply, Request, endpoint
from argosy.model.enlisting import HostOrder, HostReport, HostState


class ExamineRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    host: HostOrder
    provider: str = ""  # "": the one whose hosts people name


class ExamineReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    report: HostReport


class EnlistRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    hosts: tuple[HostOrder, ...]
    provider: str = ""


class HostList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    hosts: tuple[HostState, ...]


class CloseHostsRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    hosts: tuple[str, ...]  # `gpu1`, `lab/gpu1`, or `lab` for all of the pool
    state: str = ""  # cordoned | drained; "": open again
    provider: str = ""


class DismissRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    hosts: tuple[str, ...]
    force: bool = False
    provider: str = ""


class HostCalls:
    @endpoint("POST", "/hosts/examine", ExamineRequest, permission="hosts.write")
    def examine_host(self, host: HostOrder, provider: str = "") -> ExamineReply:
        """Go to a host and look: whether it works, what it is, what to do. Errors: "usage"."""

    @endpoint("POST", "/hosts", EnlistRequest, permission="hosts.write")
    def enlist_hosts(self, hosts: tuple[HostOrder, ...], provider: str = "") -> Done:
        """Put hosts into their pools. Errors: "usage", "conflict"."""

    @endpoint("GET", "/hosts", permission="hosts.read")
    def hosts(self) -> HostList:
        """All hosts of all pools, as they were seen last."""

    @endpoint("POST", "/hosts/close", CloseHostsRequest, permission="hosts.write")
    def close_hosts(self, hosts: tuple[str, ...], state: str = "", provider: str = "") -> Done:
        """Let hosts take nothing new, or open them again. Errors: "not-found", "conflict", "usage"."""

    @endpoint("POST", "/hosts/dismiss", DismissRequest, permission="hosts.write")
    def dismiss_hosts(self, hosts: tuple[str, ...], force: bool = False, provider: str = "") -> Done:
        """Take hosts out of their pools. Errors: "not-found", "conflict"."""
