"""The installed command line on AWS: a fake EC2 whose machines are real hosts, a server of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from e2e_house import House

from argosy.infra.machines import CLAIM
from argosy.testing.fake_ec2 import FakeEc2, why_no_fake_ec2
from argosy.testing.fake_ec2_cloud import tags_of
from argosy.testing.fake_ec2_hosts import Ec2Hosts
from argosy.testing.hosts import why_no_hosts

pytestmark = [
    pytest.mark.skipif(bool(why_no_fake_ec2()), reason=why_no_fake_ec2() or "there is a fake EC2"),
    pytest.mark.e2e,
    pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made"),
]
REGION = "us-east-1"
KIND = "m6i.large"


@pytest.fixture(scope="module")
def cloud() -> Iterator[FakeEc2]:
    with Ec2Hosts() as hosts, FakeEc2(machines=hosts) as cloud:
        hosts.join(cloud, REGION)
        yield cloud


@pytest.fixture
def aws(cloud: FakeEc2) -> Iterator[House]:
    """A house whose server may use AWS; afterwards nothing is left there."""
    house = House()
    house.env |= cloud.environ(REGION) | {"ARGOSY_INFRA": "local,aws"}
    try:
        yield house
        house.run("down", "--all", "--yes", ok=False)
        house.wait("the cloud is empty", lambda: not cloud.left())
    finally:
        house.close()
        cloud.lost.clear()
        cloud.capacity.clear()


def test_a_cluster_lives_on_aws(aws: House, cloud: FakeEc2) -> None:
    """launch, exec, stop, start, down: the same commands as anywhere."""
    text = (
        "resources: {infra: aws/us-east-1, instance_type: m6i.large, use_spot: false}\n"
        "run: echo hello from $(hostname)\n"
    )
    task = aws.file("hello.yaml", text)
    done = aws.run("launch", "-c", "dev", "--yes", task)
    (machine,) = cloud.instances()
    assert "hello from lab" in done.stdout
    assert tags_of(machine)["Name"] == tags_of(machine)[CLAIM]
    aws.run("exec", "dev", "echo kept > ~/kept")
    aws.run("stop", "dev", "--yes")
    aws.wait("it rests", lambda: machine.state == "stopped")
    aws.run("start", "dev", "--yes")
    aws.run("exec", "dev", "cat ~/kept")
    assert "kept" in aws.log("dev")
    aws.run("down", "dev", "--yes")


def test_a_spot_loss_with_notice_is_recovered_in_another_zone(aws: House, cloud: FakeEc2) -> None:
    text = (
        "resources: {infra: aws/us-east-1, instance_type: m6i.large, use_spot: true}\n"
        "run: |\n  echo attempt in $(hostname)\n  sleep 60\n"
    )
    aws.run("jobs", "launch", "-n", "spot", "--yes", "--detach-run", aws.file("spot.yaml", text))
    aws.wait_job(None, 1, "running")
    (machine,) = cloud.instances()
    zone = machine.placement.availability_zone
    cloud.capacity[(KIND, zone)] = 0
    cloud.interrupt(machine.id, 2.0)
    (other,) = aws.wait("another one", lambda: [e for e in cloud.instances() if e.id != machine.id])
    assert other.placement.availability_zone != zone
    logs = ("jobs", "logs", "1", "--no-follow")
    aws.wait("it runs again", lambda: aws.run(*logs, ok=False).stdout.count("attempt in") == 2)
    aws.run("jobs", "cancel", "1", "--yes")


@pytest.mark.nightly
def test_killed_servers_leave_one_machine_and_then_none(aws: House, cloud: FakeEc2) -> None:
    """kill -9 as soon as the order is made, while it stops and starts, and as soon as the end is."""
    text = (
        "num_nodes: 2\n"
        "resources: {infra: aws/us-east-1, instance_type: m6i.large, use_spot: false}\n"
        "run: echo hello\n"
    )

    def killed_after(action: str, *words: str) -> None:
        """The command, and a server that dies as soon as AWS has heard of it; the next one goes on."""
        known = len(cloud.made(action))
        child = aws.spawn(*words)
        pid = aws.server_pid()
        aws.wait(action, lambda: len(cloud.made(action)) > known)
        os.kill(pid, signal.SIGKILL)
        child.wait(60)

    aws.run("status")
    killed_after("RunInstances", "launch", "-c", "dev", "--yes", "-d", str(aws.file("two.yaml", text)))
    aws.wait("it runs", lambda: (aws.cluster("dev") or {}).get("status") == "running")
    first = {each.id for each in cloud.instances()}
    assert len(first) == 2
    killed_after("StopInstances", "stop", "dev", "--yes")
    aws.wait("it rests", lambda: (aws.cluster("dev") or {}).get("status") == "stopped")
    killed_after("StartInstances", "start", "dev", "--yes")
    aws.wait("it runs again", lambda: (aws.cluster("dev") or {}).get("status") == "running")
    assert {each.id for each in cloud.instances()} == first
    killed_after("TerminateInstances", "down", "dev", "--yes")
    aws.wait("it is gone", lambda: aws.cluster("dev") is None and not cloud.left())
