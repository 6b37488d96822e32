"""The words of an order, and what listings mean: pure."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest
from aws_cloud import an_order, with_wish

from argosy.infra import border
from argosy.infra.machine_keys import Keys
from argosy.infra.machines import Machine, MachineState, Note, fact_of
from argosy.model.facts import ClaimState
from argosy.model.resources import Networking
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.providers.aws import errors
from argosy.providers.aws.account import is_hopeless
from argosy.providers.aws.images import Image, parameter_of
from argosy.providers.aws.launching import Kind, Reservation, order_of
from argosy.providers.aws.network import Place, Subnet
from argosy.providers.aws.states import machine_of
from argosy.providers.aws.wishes import wishes_of

CLAIM_ID = "clm-0000000000000000000z"
PUBLIC = Subnet(id="subnet-1", zone="us-east-1a", public=True, free=100)
PRIVATE = Subnet(id="subnet-2", zone="us-east-1b", public=False, free=100)
IMAGE = Image(id="ami-1", device="/dev/sda1", gb=8, user="ubuntu")


def words(claim: Claim, *, subnet: Subnet = PUBLIC, kind: Kind = Kind(), **more: object) -> dict[str, object]:  # noqa: B008
    return order_of(
        claim,
        wishes_of(claim),
        subnet=subnet,
        place=Place(vpc="vpc-1", subnets=(subnet,), groups=("sg-1",)),
        image=IMAGE,
        user_data="#cloud-config\n",
        kind=kind,
        reservation=more.get("reservation"),  # type: ignore[arg-type]
    )


def test_an_order_carries_its_marks_from_the_first_moment() -> None:
    claim = msgspec.structs.replace(
        with_wish(an_order(count=3, spot=True), labels=(("team", "vision"),)), tag="sto-1"
    )
    said = words(claim)
    assert (said["MinCount"], said["MaxCount"], said["ClientToken"]) == (3, 3, f"{claim.id}-us-east-1a")
    marks = {"argosy-claim": claim.id, "argosy-server": "sto-1", "argosy-nodes": "3", "argosy-user": "ubuntu"}
    specs = said["TagSpecifications"]
    assert isinstance(specs, list)
    assert [each["ResourceType"] for each in specs] == [
        "instance", "volume", "network-interface", "spot-instances-request",
    ]  # fmt: skip
    for each in specs:
        assert {tag["Key"]: tag["Value"] for tag in each["Tags"]} == marks | {
            "Name": claim.id,
            "team": "vision",
        }
    assert said["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
    }
    assert said["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert said["MetadataOptions"] == {
        "HttpTokens": "required", "HttpPutResponseHopLimit": 2, "HttpEndpoint": "enabled",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "ebs"),
    [
        ({}, {"VolumeType": "gp3", "VolumeSize": 100}),
        ({"disk_size_bytes": 4 * GIB}, {"VolumeType": "gp3", "VolumeSize": 8}),  # the image needs more
        ({"disk_tier": "low"}, {"VolumeType": "standard", "VolumeSize": 100}),
        ({"disk_tier": "high"}, {"VolumeType": "gp3", "VolumeSize": 100, "Iops": 7000, "Throughput": 500}),
        (
            {"disk_tier": "ultra", "disk_size_bytes": 20 * GIB},
            {"VolumeType": "io2", "VolumeSize": 20, "Iops": 10000},
        ),
        (
            {"config": '{"aws":{"kms_key":"arn:key"}}'},
            {"VolumeType": "gp3", "VolumeSize": 100, "Encrypted": True, "KmsKeyId": "arn:key"},
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_disks(fields: dict[str, object], ebs: dict[str, object]) -> None:
    said = words(with_wish(an_order(), **fields))
    assert said["BlockDeviceMappings"] == [
        {"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": True, **ebs}}
    ]


def test_gangs_are_close_and_speak_efa_where_the_type_does() -> None:
    p4d = Kind(efa_cards=4, clusters=True)
    gang = an_order("p4d.24xlarge", count=2, accelerator="A100")
    said = words(gang, kind=p4d)
    assert said["Placement"] == {"GroupName": f"argosy-{gang.id}"}
    (card,) = said["NetworkInterfaces"]  # type: ignore[misc]
    assert (card["InterfaceType"], card["AssociatePublicIpAddress"]) == ("efa", True)
    assert "SubnetId" not in said
    best = with_wish(gang, network_tier="best")
    cards = words(best, kind=p4d, subnet=PRIVATE)["NetworkInterfaces"]
    assert isinstance(cards, list)
    assert [each["NetworkCardIndex"] for each in cards] == [0, 1, 2, 3]
    assert [each["InterfaceType"] for each in cards] == ["efa", "efa-only", "efa-only", "efa-only"]
    with pytest.raises(border.RequestRefused) as caught:
        words(best, kind=p4d)
    assert str(caught.value) == (
        "p4d.24xlarge has 4 network cards, and AWS gives no public address to a machine that uses several: "
        "name a "
        "private subnet that this server reaches (`networking: {subnet_name: NAME}`), or leave "
        "`network_tier` out "
        "and use one card"
    )
    assert "NetworkInterfaces" not in words(an_order(), kind=Kind(efa_cards=1))


def test_identity_key_and_reservation() -> None:
    config = '{"aws":{"remote_identity":"arn:aws:iam::1:instance-profile/p","key_name":"mine"}}'
    block = Reservation(id="cr-1", zone="us-east-1a", is_block=True)
    said = words(with_wish(an_order(), config=config), reservation=block)
    assert said["IamInstanceProfile"] == {"Arn": "arn:aws:iam::1:instance-profile/p"}
    assert said["KeyName"] == "mine"
    assert said["InstanceMarketOptions"] == {"MarketType": "capacity-block"}
    assert said["CapacityReservationSpecification"] == {
        "CapacityReservationTarget": {"CapacityReservationId": "cr-1"}
    }


def test_networking_goes_before_config() -> None:
    config = '{"aws":{"vpc_name":"a","subnet_names":["b"],"security_group_name":"c"}}'
    wishes = wishes_of(with_wish(an_order(), config=config))
    assert (wishes.vpc, wishes.subnets, wishes.groups) == ("a", ("b",), ("c",))
    net = Networking(vpc_name="x", subnet_names=("y",), security_groups=("z",))
    wishes = wishes_of(with_wish(an_order(), config=config, networking=net))
    assert (wishes.vpc, wishes.subnets, wishes.groups) == ("x", ("y",), ("z",))


@pytest.mark.parametrize(
    ("accelerator", "arch", "part"),
    [
        (None, "x86_64", "canonical/ubuntu/server/22.04/stable/current/amd64"),
        (None, "arm64", "canonical/ubuntu/server/22.04/stable/current/arm64"),
        ("H100", "x86_64", "deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04"),
        ("T4g", "arm64", "deeplearning/ami/arm64/base-oss-nvidia-driver-gpu-ubuntu-22.04"),
        ("Trainium", "x86_64", "neuron/dlami/multi-framework"),
    ],
)
def test_images_by_accelerator_and_architecture(accelerator: str | None, arch: str, part: str) -> None:
    assert part in parameter_of(wishes_of(an_order(accelerator=accelerator, arch=arch)))


def listed(state: str = "running", code: str = "", said: str = "", **fields: object) -> Machine:
    """As EC2 tells of an instance of ours."""
    tags = {"argosy-claim": CLAIM_ID, "argosy-server": "sto", "argosy-nodes": "2", "argosy-user": "admin"}
    told = {
        "InstanceId": "i-1",
        "AmiLaunchIndex": 1,
        "State": {"Name": state},
        "StateReason": {"Code": code, "Message": said},
        "Placement": {"AvailabilityZone": "us-east-1a"},
        "InstanceType": "g6.xlarge",
        "PublicIpAddress": "1.2.3.4",
        "PrivateIpAddress": "10.0.0.4",
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    machine = machine_of("us-east-1", told | fields, "r-1", private=False)
    assert machine is not None
    return machine


@pytest.mark.parametrize(
    ("state", "code", "means"),
    [
        ("pending", "pending", MachineState.STARTING),
        ("running", "", MachineState.RUNNING),
        ("stopping", "Client.UserInitiatedShutdown", MachineState.STOPPING),
        ("stopped", "Client.UserInitiatedShutdown", MachineState.STOPPED),
        ("shutting-down", "Client.UserInitiatedShutdown", MachineState.FAILED),
        ("terminated", "Server.InternalError", MachineState.FAILED),
        ("terminated", "Server.SpotInstanceTermination", MachineState.PREEMPTED),
        ("a new word", "", MachineState.STARTING),
    ],
)
def test_what_a_listing_means(state: str, code: str, means: MachineState) -> None:
    assert listed(state, code).state is means


def test_a_machine_is_told_from_its_tags_and_its_place_in_the_launch() -> None:
    machine = listed(InstanceLifecycle="spot")
    assert (machine.claim_id, machine.index, machine.mark.count, machine.mark.tag) == (CLAIM_ID, 1, 2, "sto")
    assert (machine.host, machine.ip, machine.user, machine.spot) == ("1.2.3.4", "10.0.0.4", "admin", True)
    assert (machine.address, machine.kind) == ("us-east-1/i-1", "g6.xlarge")
    assert listed(PublicIpAddress="").host == "10.0.0.4"
    assert machine_of("us-east-1", {"InstanceId": "i-9", "Tags": []}, "r-1", private=False) is None


def test_who_ended_a_machine_that_was_held() -> None:
    ended = listed("terminated", "Client.UserInitiatedShutdown")
    note = Note(claim_id=CLAIM_ID, region="us-east-1", count=2, ids={0: "i-0", 1: "i-1"}, asked_ms=1000)
    fact = fact_of(CLAIM_ID, [ended], note, 2000, lag_s=60, title="AWS")
    assert fact is not None
    assert (fact.state, fact.detail) == (
        ClaimState.GONE,
        f"{CLAIM_ID}-1 in us-east-1a has ended: somebody terminated it by AWS's API or console",
    )


def test_what_ends_while_it_is_made_says_why() -> None:
    broken = listed("terminated", "Client.InternalError", "Client error on launch").error
    assert isinstance(broken, border.RequestRefused)
    assert str(broken) == (
        "i-1 ended while it was made: Client error on launch; the KMS key of the disk must be enabled, and "
        "your credentials may use it"
    )
    full = listed("terminated", "Client.VolumeLimitExceeded", "Volume limit exceeded").error
    assert isinstance(full, border.QuotaExceeded)
    assert str(full) == (
        "i-1 ended while it was made: Volume limit exceeded; raise the quota of EBS storage in us-east-1a, "
        "or ask for less"
    )
    silent = listed("terminated", "").error
    assert isinstance(silent, border.OutOfCapacity)
    assert str(silent) == "i-1 ended while it was made: AWS does not say why"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InsufficientInstanceCapacity", border.OutOfCapacity),
        ("UnfulfillableCapacity", border.OutOfCapacity),
        ("VcpuLimitExceeded", border.QuotaExceeded),
        ("MaxSpotInstanceCountExceeded", border.QuotaExceeded),
        ("AuthFailure", border.CredentialsRejected),
        ("ExpiredToken", border.CredentialsRejected),
        ("SignatureDoesNotMatch", border.CredentialsRejected),
        ("UnauthorizedOperation", border.CredentialsRejected),
        ("OptInRequired", border.CredentialsRejected),
        ("InvalidAMIID.NotFound", border.RequestRefused),
        ("InvalidSubnetID.NotFound", border.RequestRefused),
        ("InvalidParameterValue", border.RequestRefused),
        ("RequestLimitExceeded", border.Transient),
        ("InternalError", border.Transient),
        ("PendingVerification", border.Transient),
        ("IdempotentParameterMismatch", border.Transient),
    ],
)
def test_codes_of_aws_are_errors_of_the_border(code: str, kind: type[border.BorderError]) -> None:
    error = errors.border_error(code, "said AWS", region="us-east-1", scope="p5 in us-east-1a")
    assert type(error) is kind
    assert str(error)


def test_a_type_that_a_zone_does_not_have_is_a_lack_of_capacity() -> None:
    text = (
        "Your requested instance type (p5.48xlarge) is not supported in your requested Availability Zone (x)."
    )
    assert isinstance(errors.border_error("Unsupported", text, region="r"), border.OutOfCapacity)


def test_keys_are_the_same_each_time_and_openssh_reads_them(tmp_path: Path) -> None:
    keys, again = Keys(tmp_path, "aws"), Keys(tmp_path, "aws")
    assert keys.user_data("clm-1") == again.user_data("clm-1") != keys.user_data("clm-2")
    assert keys.identity.stat().st_mode & 0o077 == 0
    read = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(keys.identity)], capture_output=True, text=True, check=False
    )
    if read.returncode == 127:
        pytest.skip("ssh-keygen is not installed")
    assert read.stdout.split()[:2] == keys.opens().split()[:2]


def test_who_surely_has_no_credentials_loads_no_sdk(tmp_path: Path) -> None:
    """Nothing set, no file, no machine of Amazon's; a region alone says nothing about who one is."""
    nobody = {"HOME": str(tmp_path), "AWS_DEFAULT_REGION": "eu-west-1"}
    assert is_hopeless(nobody)
    assert not is_hopeless(nobody | {"AWS_PROFILE": "lab"})
    assert not is_hopeless(nobody | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.2/x"})
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").touch()
    assert not is_hopeless(nobody)
