"""Fluidstack's present API (Atlas, v1alpha1) lists clusters and their machines and makes none. So this driver
tells which clusters there are, and how the drivers for Kubernetes and Slurm come to use them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_access import home_text
from argosy.infra.machine_vendor import MachineOrder, RestVendor, closed_offer, findings_of
from argosy.infra.machines import Machine
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Offer
from argosy.model.rows import Claim
from argosy.providers.fluidstack import MANIFEST

URL: Final = "https://api.atlas.fluidstack.io/api/v1alpha1"
NO_ORDERS: Final = "Fluidstack makes no machines by its API: tasks run on its clusters"


class Cluster(msgspec.Struct, frozen=True):
    id: str
    name: str
    region: str
    type: str  # kubernetes | slurm
    health: str = ""  # healthy | stale | offline


class Fluidstack(RestVendor):
    manifest = MANIFEST
    settle_s = 0.0
    key_word = "token"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, "ARGOSY_FLUIDSTACK_URL", URL, None)

    def key(self) -> str:
        return self._setting.environ.get("FLUIDSTACK_TOKEN", "")

    async def clusters(self) -> list[Cluster]:
        return await self._http.call("GET", "/clusters", into=list[Cluster])

    async def check(self) -> Sequence[Diagnostic]:
        """One finding for each cluster: where it is used, or the command with which it will be."""
        clusters: list[Cluster] = []

        async def accepted() -> str:
            clusters.extend(await self.clusters())
            return f"the token is accepted; clusters: {len(clusters)}. {NO_ORDERS}"

        found = await findings_of(MANIFEST, accepted)
        environ = self._setting.environ
        files = [Path(each) for each in environ.get("KUBECONFIG", "").split(":") if each]
        contexts = contexts_in([_text(each) for each in files] or [home_text(environ, ".kube/config")])
        logins = hosts_in(home_text(environ, ".slurm/config"))
        return found + [finding_of(each, contexts, logins) for each in clusters]

    async def quote(self, want: Want) -> Sequence[Offer]:
        """What the catalog prices cannot be ordered any more."""
        names = sorted(f"{each.type}/{each.name}" for each in await self.clusters())
        told = f" ({', '.join(names)})" if names else ""
        return [closed_offer(MANIFEST.name, "", f"{NO_ORDERS}{told}", self._clock.now_ms())]

    def refuse(self, claim: Claim) -> None:
        raise border.Unsupported(f"{NO_ORDERS}; `argosy check` tells how they are used")

    async def create(self, order: MachineOrder, index: int) -> str:
        raise border.Unsupported(NO_ORDERS)

    async def listed(self, region: str) -> Sequence[Machine]:
        return ()

    async def delete(self, machine: Machine) -> None:
        """There is none."""


def finding_of(cluster: Cluster, contexts: Sequence[str], logins: Sequence[str]) -> Diagnostic:
    """What is to be done with one cluster. Pure.

    >>> finding_of(Cluster("1", "train", "us-east", "slurm", "healthy"), (), ("train",)).what
    'the Slurm cluster train in us-east is `infra: slurm/train`'
    """
    kind = {"kubernetes": "Kubernetes", "slurm": "Slurm"}.get(cluster.type, cluster.type)
    name = f"the {kind} cluster {cluster.name} in {cluster.region}"
    if cluster.health == "offline":
        fix = "look into the console of Fluidstack, or ask its support"
        return Diagnostic(provider=MANIFEST.name, ok=False, what=f"{name} is offline", hint=fix)
    if cluster.type == "kubernetes":
        context = next((each for each in contexts if cluster.name in re.split(r"[@/:]", each)), "")
        if context:
            what = f"{name} is `infra: kubernetes/{context}`"
            return Diagnostic(provider=MANIFEST.name, ok=True, what=what)
        fix = (
            "download its kubeconfig from the console, join it with yours (`KUBECONFIG=~/.kube/config:FILE "
            "kubectl config view --flatten`), and name its context in ARGOSY_KUBERNETES_CONTEXTS"
        )
        what = f"{name} has no context in the kubeconfig"
        return Diagnostic(provider=MANIFEST.name, ok=False, what=what, hint=fix)
    if cluster.type == "slurm":
        if cluster.name in logins:
            what = f"{name} is `infra: slurm/{cluster.name}`"
            return Diagnostic(provider=MANIFEST.name, ok=True, what=what)
        fix = (
            f"add its login node to ~/.slurm/config: `Host {cluster.name}`, `HostName ADDRESS`, `User YOU` "
            "(the console tells the address)"
        )
        what = f"{name} has no login node in ~/.slurm/config"
        return Diagnostic(provider=MANIFEST.name, ok=False, what=what, hint=fix)
    fix = "say what it is to who looks after Argosy"
    return Diagnostic(provider=MANIFEST.name, ok=False, what=f"{name} is of a kind nobody knows", hint=fix)


def contexts_in(texts: Sequence[str]) -> list[str]:
    """Names of the contexts of kubeconfig files."""
    import yaml

    found: list[str] = []
    for text in texts:
        try:
            told: Any = yaml.safe_load(text) or {}
            found += [str(each["name"]) for each in told.get("contexts") or ()]
        except (yaml.YAMLError, AttributeError, KeyError, TypeError):
            continue
    return found


def hosts_in(text: str) -> list[str]:
    """Names of the hosts of a file as OpenSSH reads it.

    >>> hosts_in("Host train eval\\n  User me\\n")
    ['train', 'eval']
    """
    lines = re.findall(r"^\s*Host\s+(.+?)\s*$", text, re.MULTILINE | re.IGNORECASE)
    return [name for line in lines for name in line.split()]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
