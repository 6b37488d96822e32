"""What the agents of this machine learn from the environment of its server."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from argosy.infra.boot import agent_zipapp
from argosy.providers.local.agents import ZipappAgents


def test_what_people_say_of_this_machine_reaches_its_agents(tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "ARGOSY_NODE_LABELS": "disk=nvme",
        "ARGOSY_NODE_TAINTS": "fragile",
        "ARGOSY_NODE_DOMAINS": "block/rack",
    }
    facts = asyncio.run(ZipappAgents(agent_zipapp(tmp_path), environ).probe())
    assert facts.labels == (("disk", "nvme"),)
    assert (facts.taints, facts.domains) == (("fragile",), ("block", "rack"))
