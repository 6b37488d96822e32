"""Instances that are real hosts: the way to their agents, verified from the first connection on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aws_cloud import REGION, an_order

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import Channel
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.provider import Setting
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.phases import Desired
from argosy.model.rows import Claim, Node
from argosy.providers.aws.provider import Aws
from argosy.testing.builders import a_node
from argosy.testing.fake_ec2 import FakeEc2, why_no_fake_ec2
from argosy.testing.fake_ec2_hosts import Ec2Hosts
from argosy.testing.hosts import why_no_hosts

pytestmark = [
    pytest.mark.skipif(bool(why_no_fake_ec2()), reason=why_no_fake_ec2() or "there is a fake EC2"),
    pytest.mark.process,
    pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made"),
]


class Site:
    """A cloud whose instances are hosts, and the driver."""

    def __init__(self, cloud: FakeEc2, hosts: Ec2Hosts, root: Path) -> None:
        self.cloud, self.hosts = cloud, hosts
        setting = Setting(root=root, environ={}, clock=SystemClock(), ids=SystemIds())
        self.provider = MachineDriver(Aws(setting), setting)

    async def node(self, claim: Claim) -> Node:
        await self.provider.ensure(claim)
        (fact,) = await self.provider.observe([claim.id])
        return a_node(claim_id=claim.id, provider="aws", address=fact.nodes[0].address)

    async def reach(self, node: Node, tries: int = 20) -> Channel:
        """As links do: again until it answers."""
        for left in reversed(range(tries)):
            try:
                return await self.provider.reach(node)
            except border.Transient:
                if not left:
                    raise
                await asyncio.sleep(0.1)
        raise AssertionError("unreachable")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Ec2Hosts() as hosts, FakeEc2(machines=hosts) as cloud, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in cloud.environ(REGION).items():
            patch.setenv(name, value)
        hosts.join(cloud, REGION)
        yield Site(cloud, hosts, tmp_path)
        assert cloud.left() == []


def test_the_agent_is_reached_and_started_again_after_a_rest(site: Site) -> None:
    """One claim's life on a real host: reached with a host key known before, at rest, back with its disk."""

    async def act() -> None:
        claim = an_order()
        node = await site.node(claim)
        channel = await site.reach(node)

        async def again() -> Channel:
            return await site.reach(node)

        client = AgentClient(again)
        facts = await client.node()
        assert facts.cpus_milli > 0
        await client.close()
        channel.writer.close()
        host = site.hosts.host(node.address.partition("/")[2])
        host.path("/home/ubuntu/kept").write_text("yes")
        assert len(host.processes("agent-.* serve")) == 1
        resting = msgspec.structs.replace(claim, desired=Desired.STOP)
        await site.provider.ensure(resting)
        with pytest.raises(border.Unreachable):
            await site.provider.reach(node)
        await site.provider.ensure(claim)
        (await site.reach(node)).writer.close()
        host = site.hosts.host(node.address.partition("/")[2])
        assert host.path("/home/ubuntu/kept").read_text() == "yes"
        await site.provider.release(claim.id)
        with pytest.raises(border.Unreachable):
            await site.provider.reach(node)

    asyncio.run(act())


def test_another_host_at_the_address_is_not_trusted(site: Site) -> None:
    """The host key comes with the order: whoever answers with another one is not our machine."""

    async def act() -> None:
        claim = an_order()
        node = await site.node(claim)
        host = site.hosts.host(node.address.partition("/")[2])
        host.wait()
        host.new_host_key()
        with pytest.raises(border.RequestRefused, match="host key"):
            await site.reach(node, tries=3)
        await site.provider.release(claim.id)

    asyncio.run(act())
