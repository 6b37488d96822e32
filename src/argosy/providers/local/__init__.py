"""This machine as an infrastructure: every node is a folder with an agent of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from argosy.infra.provider import Capabilities, Limits, Manifest

if TYPE_CHECKING:
    from argosy.infra.provider import Setting
    from argosy.providers.local.provider import LocalProvider

NODES_MAX: Final = 128  # of one claim: more agents than that only slow one machine down

MANIFEST = Manifest(
    name="local",
    tested="itself",
    own_machine=True,
    title="this machine",
    capabilities=Capabilities(stop=True, multi_node=True, fractions=True, owned=True),
    aliases=("localhost",),
    class_name="Local",
    limits=Limits(nodes_max=NODES_MAX, text=f"this machine runs at most {NODES_MAX} nodes"),
    settings=("ARGOSY_LOCAL_PRICE",),
    task_fields=("nodes",),
    enabled_by_default=True,
)


def create(setting: Setting) -> LocalProvider:
    """The driver. ARGOSY_LOCAL_PRICE is what an hour of one node costs, in dollars (default 0)."""
    from argosy.infra.boot import agent_zipapp
    from argosy.providers.local.agents import ZipappAgents
    from argosy.providers.local.provider import LocalProvider, parse_price

    return LocalProvider(
        setting.root,
        clock=setting.clock,
        agents=lambda: ZipappAgents(agent_zipapp(setting.root / "agent"), setting.environ),
        price_micro_usd=parse_price(setting.environ.get("ARGOSY_LOCAL_PRICE", "")),
    )
