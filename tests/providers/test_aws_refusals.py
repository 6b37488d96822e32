"""What AWS refuses, and what people then read: the fact, then the fix."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aws_cloud import REGION, SMALL, Cloud, a_provider, an_order, one_cloud, with_wish

from argosy.infra import border
from argosy.infra.machine_notes import Notes
from argosy.infra.machines import CLAIM, Note
from argosy.model.phases import Desired
from argosy.model.resources import Networking
from argosy.model.rows import Claim
from argosy.providers.aws.account import Account
from argosy.testing.fake_ec2 import why_no_fake_ec2
from argosy.testing.fake_ec2_cloud import CapacityReservation

pytestmark = pytest.mark.skipif(bool(why_no_fake_ec2()), reason=why_no_fake_ec2() or "there is a fake EC2")


@pytest.fixture(scope="module")
def shared() -> Iterator[Cloud]:
    yield from one_cloud()


@pytest.fixture
def cloud(shared: Cloud) -> Iterator[Cloud]:
    shared.fake.reset()
    yield shared
    assert shared.fake.left() == []


def refused(cloud: Cloud, root: Path, claim: Claim, kind: type[border.BorderError]) -> str:
    """What `ensure` says; nothing of the claim is left, not even a note."""
    provider = a_provider(root, cloud.clock, cloud.account)
    with pytest.raises(kind) as caught:
        asyncio.run(provider.ensure(claim))
    assert cloud.fake.tagged(CLAIM, claim.id) == []
    assert Notes(root / "orders", Note).all() == []
    assert asyncio.run(provider.observe([claim.id])) == []
    return str(caught.value)


def test_expired_credentials(cloud: Cloud, tmp_path: Path) -> None:
    cloud.fake.expired = True
    said = refused_without_look(cloud, tmp_path, an_order())
    assert said == (
        "the AWS credentials have expired, or this machine's clock is off (see `timedatectl`); run "
        "`aws sso login`, or put new ones where the server reads them (AWS_PROFILE, ~/.aws/credentials)"
    )


def test_a_page_instead_of_an_answer(cloud: Cloud, tmp_path: Path) -> None:
    cloud.fake.pages = 100
    provider = a_provider(tmp_path, cloud.clock, cloud.account)
    with pytest.raises(border.Transient) as caught:
        asyncio.run(provider.ensure(an_order()))
    assert str(caught.value) == (
        "AWS in us-east-1 answers with a web page instead of data: a proxy in between, or maintenance?"
    )
    cloud.fake.pages = 0


@pytest.mark.parametrize(
    ("code", "words", "text"),
    [
        (
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match.",
            "AWS does not accept the signature: the secret key is wrong, or this machine's clock is (see "
            "`timedatectl`)",
        ),
        (
            "RequestExpired",
            "Request has expired.",
            "the AWS credentials have expired, or this machine's clock is off (see `timedatectl`); run "
            "`aws sso login`, or put new ones where the server reads them (AWS_PROFILE, ~/.aws/credentials)",
        ),
        (
            "Blocked",
            "This account is currently blocked",
            "this account may not use us-east-1: This account is currently blocked; "
            "https://console.aws.amazon.com/billing tells what it lacks, AWS Support the rest",
        ),
        (
            "OptInRequired",
            "You are not subscribed to this service.",
            "this account may not use us-east-1: You are not subscribed to this service; "
            "https://console.aws.amazon.com/billing tells what it lacks, AWS Support the rest",
        ),
        (
            "InvalidInstanceType",
            "The instance type 'g6.xlarge' does not exist",
            "The instance type 'g6.xlarge' does not exist (InvalidInstanceType) (us-east-1); "
            "`argosy gpus --infra aws` lists types",
        ),
        (
            "InvalidParameterValue",
            "Tag keys must be short.",
            "AWS refuses it in us-east-1: Tag keys must be short (InvalidParameterValue)",
        ),
    ],
    ids=lambda value: value if value.isalnum() else "",
)
def test_an_order_is_refused_with_what_to_do(
    code: str, words: str, text: str, cloud: Cloud, tmp_path: Path
) -> None:
    cloud.fake.refuse("RunInstances", code, words, times=100)
    provider = a_provider(tmp_path, cloud.clock, cloud.account)
    with pytest.raises(border.BorderError) as caught:
        asyncio.run(provider.ensure(an_order()))
    assert str(caught.value) == text
    assert cloud.fake.tagged(CLAIM, an_order().id) == []


def refused_without_look(cloud: Cloud, root: Path, claim: Claim, account: Account | None = None) -> str:
    provider = a_provider(root, cloud.clock, account or cloud.account)
    with pytest.raises(border.CredentialsRejected) as caught:
        asyncio.run(provider.ensure(claim))
    return str(caught.value)


def test_new_credentials_are_taken_when_the_old_have_expired(cloud: Cloud, tmp_path: Path) -> None:
    """A role's credentials end while the server runs; the next ones lie where the first did."""
    cloud.fake.refuse("DescribeInstances", "RequestExpired", "Request has expired.", times=1)
    provider = a_provider(tmp_path, cloud.clock, cloud.account)
    claim = an_order()
    asyncio.run(provider.ensure(claim))
    assert len(cloud.fake.tagged(CLAIM, claim.id)) == 1
    asyncio.run(provider.release(claim.id))


def test_no_credentials(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert refused_without_look(cloud, tmp_path, an_order(), Account()) == (
        "there are no AWS credentials; run `aws configure` or `aws sso login`, or give the server "
        "AWS_PROFILE "
        "or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert refused_without_look(cloud, tmp_path, an_order(), Account()).startswith(
        "there are no AWS credentials: The config profile (work) could not be found; run `aws configure`"
    )
    (finding,) = asyncio.run(a_provider(tmp_path, cloud.clock, Account()).check())
    assert (finding.ok, finding.what) == (
        False,
        "there are no AWS credentials: The config profile (work) could not be found",
    )
    assert finding.hint.startswith("run `aws configure` or `aws sso login`")


def test_profiles_and_their_roles_are_used(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the tools of AWS find them: keys in a file, a profile in a variable, a role that it takes on."""
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    (tmp_path / "keys").write_text(f"[base]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    role = "arn:aws:iam::123456789012:role/builder"
    (tmp_path / "config").write_text(f"[profile work]\nrole_arn = {role}\nsource_profile = base\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for profile, roles in (("base", 0), ("work", 1)):
        monkeypatch.setenv("AWS_PROFILE", profile)
        cloud.fake.calls.clear()
        provider, claim = a_provider(tmp_path / profile, cloud.clock, Account()), an_order()
        asyncio.run(provider.ensure(claim))
        assert len(cloud.fake.tagged(CLAIM, claim.id)) == 1
        taken = [call for call in cloud.fake.calls if call.action == "AssumeRole"]
        assert [call.params["RoleArn"] for call in taken] == [role] * roles
        asyncio.run(provider.release(claim.id))


def test_a_region_that_is_not_enabled(cloud: Cloud, tmp_path: Path) -> None:
    cloud.fake.disabled.add("me-south-1")
    said = refused_without_look(cloud, tmp_path, an_order(region="me-south-1"))
    assert said == (
        "the region me-south-1 is not enabled for this AWS account; `aws account enable-region --region-name "
        "me-south-1` enables it (it takes some minutes), or name another region"
    )


def test_no_permission(cloud: Cloud, tmp_path: Path) -> None:
    text = "You are not authorized to perform this operation. Encoded authorization failure message: c2VjcmV0"
    cloud.fake.refuse("RunInstances", "UnauthorizedOperation", text, status=403)
    said = refused(cloud, tmp_path, an_order(zone="us-east-1a"), border.CredentialsRejected)
    assert said == (
        "these credentials may not do that in us-east-1: You are not authorized to perform this operation; "
        "docs/aws.md has the policy that Argosy needs"
    )


def test_no_default_vpc(cloud: Cloud, tmp_path: Path) -> None:
    cloud.fake.delete_default_vpc(REGION)
    assert refused(cloud, tmp_path, an_order(), border.RequestRefused) == (
        "us-east-1 has no default VPC: make one with `aws ec2 create-default-vpc --region us-east-1`, or "
        "name a "
        "VPC with `networking: {vpc_name: NAME}`"
    )
    findings = asyncio.run(a_provider(tmp_path, cloud.clock, cloud.account).check())
    bad = [each for each in findings if not each.ok]
    assert [each.what for each in bad] == ["us-east-1 has no default VPC"]
    assert bad[0].hint.startswith("`aws ec2 create-default-vpc --region us-east-1`")


def test_names_of_networks_that_do_not_exist(cloud: Cloud, tmp_path: Path) -> None:
    backend = cloud.fake.backend(REGION)
    vpc = backend.create_vpc("10.9.0.0/16")
    vpc.add_tag("Name", "lab")
    subnet = backend.create_subnet(vpc.id, "10.9.1.0/24", availability_zone="us-east-1a")
    subnet.add_tag("Name", "gpu")

    def said(**fields: object) -> str:
        claim = with_wish(an_order(), networking=Networking(**fields))  # type: ignore[arg-type]
        return refused(cloud, tmp_path, claim, border.RequestRefused)

    assert said(vpc_name="private-ai-vpc").startswith(
        "there is no VPC `private-ai-vpc` in us-east-1; there are: "
    )
    assert f"{vpc.id} (lab)" in said(vpc_name="private-ai-vpc")
    assert said(vpc_name="lab", subnet_names=("private-subnet",)) == (
        f"there is no subnet `private-subnet` in {vpc.id} (us-east-1); there are: {subnet.id} (gpu)"
    )
    text = said(vpc_name="lab", security_groups=("sg-ai-training",))
    assert text.startswith(
        f"there is no security group `sg-ai-training` in {vpc.id} (us-east-1); there are: sg-"
    )


def test_the_network_of_the_secure_task_is_joined(cloud: Cloud, tmp_path: Path) -> None:
    """`networking: {vpc_name, subnet_name, security_groups}` by names: no public address, no group of "
    "ours."""
    backend = cloud.fake.backend(REGION)
    vpc = backend.create_vpc("10.9.0.0/16")
    vpc.add_tag("Name", "private-ai-vpc")
    subnet = backend.create_subnet(vpc.id, "10.9.1.0/24", availability_zone="us-east-1b")
    subnet.add_tag("Name", "private-subnet")
    group = backend.create_security_group("sg-ai-training", "training", vpc_id=vpc.id)
    wish = Networking(
        vpc_name="private-ai-vpc", subnet_names=("private-subnet",), security_groups=("sg-ai-training",)
    )
    claim = with_wish(an_order(), networking=wish)
    provider = a_provider(tmp_path, cloud.clock, cloud.account)
    asyncio.run(provider.ensure(claim))
    (machine,) = cloud.fake.tagged(CLAIM, claim.id)
    assert (machine.subnet_id, machine.public_ip) == (subnet.id, None)
    assert [each.id for each in machine.security_groups] == [group.id]
    (fact,) = asyncio.run(provider.observe([claim.id]))
    assert fact.nodes[0].ip.startswith("10.9.1.")
    asyncio.run(provider.release(claim.id))


def test_ports_are_opened_by_a_group_of_their_own(cloud: Cloud, tmp_path: Path) -> None:
    """Machines that ask for the same ports share it; a rule that a crash left out is added."""
    backend = cloud.fake.backend(REGION)
    provider = a_provider(tmp_path, cloud.clock, cloud.account)
    name, found = "argosy-ports-8000-9000to9010", []
    for turn in range(2):
        claim = with_wish(an_order(), ports=("9000-9010", "8000"))
        asyncio.run(provider.ensure(claim))
        (machine,) = cloud.fake.tagged(CLAIM, claim.id)
        groups = {each.name: each for each in machine.security_groups}
        assert set(groups) == {"argosy", name}
        rules = groups[name].ingress_rules
        open_to_all = [(each.from_port, each.to_port, each.ip_range) for each in rules]
        assert sorted(open_to_all, key=str) == [
            (8000, 8000, {"CidrIp": "0.0.0.0/0"}),
            (9000, 9010, {"CidrIp": "0.0.0.0/0"}),
        ]
        ssh = [(each.from_port, each.to_port) for each in groups["argosy"].ingress_rules if each.ip_range]
        assert ssh == [(22, 22)], "of the others only machines of the group see anything"
        found.append(groups[name].id)
        asyncio.run(provider.release(claim.id))
        if not turn:
            rules.pop()
            provider = a_provider(tmp_path, cloud.clock, cloud.account)
    assert found[0] == found[1]
    assert [each.name for each in backend.describe_security_groups()].count(name) == 1


def test_a_key_that_does_not_exist(cloud: Cloud, tmp_path: Path) -> None:
    claim = with_wish(an_order(zone="us-east-1a"), config='{"aws":{"key_name":"mine"}}')
    assert refused(cloud, tmp_path, claim, border.RequestRefused) == (
        "The key pair 'mine' does not exist (InvalidKeyPair.NotFound) (us-east-1); `aws ec2 "
        "describe-key-pairs` "
        "lists those of the region"
    )


def test_settings_that_cannot_be_meant(cloud: Cloud, tmp_path: Path) -> None:
    def said(config: str) -> str:
        return refused(cloud, tmp_path, with_wish(an_order(), config=config), border.RequestRefused)

    assert said('{"aws":{"vpc_name":3}}') == (
        "`config.aws` of the task: Expected `str`, got `int` - at `$.vpc_name`"
    )
    assert said('{"aws":{"remote_identity":"SERVICE_ACCOUNT"}}').startswith(
        "Argosy makes no instance profile of its own: name the one that programs shall have in "
        "`config.aws.remote_identity`"
    )


def test_quota_zero(cloud: Cloud, tmp_path: Path) -> None:
    """It says the quota's name and how to raise it, before anything is ordered."""
    cloud.fake.quotas["L-417A185B"] = 0
    claim = an_order("p4d.24xlarge", cpus=96, accelerator="A100")
    said = refused(cloud, tmp_path, claim, border.QuotaExceeded)
    assert said == (
        "the AWS quota `Running On-Demand P instances` (L-417A185B) is 0 vCPUs in us-east-1, and this needs "
        "96 "
        "vCPUs of p4d.24xlarge; raise it: "
        "https://us-east-1.console.aws.amazon.com/servicequotas/home/services/"
        "ec2/quotas/L-417A185B, or `aws service-quotas request-service-quota-increase --service-code ec2 "
        "--region "
        "us-east-1 --quota-code L-417A185B --desired-value N`"
    )
    assert cloud.fake.made("RunInstances") == []


def test_a_quota_that_is_used_up(cloud: Cloud, tmp_path: Path) -> None:
    """What is in use AWS counts itself: its answer is told with the name of the quota."""
    cloud.fake.quotas["L-3819A6DF"] = 4
    provider = a_provider(tmp_path / "one", cloud.clock, cloud.account)
    first = an_order(spot=True)
    asyncio.run(provider.ensure(first))
    said = refused(cloud, tmp_path / "two", an_order(spot=True), border.QuotaExceeded)
    assert said.startswith(
        "the AWS quota `All G and VT Spot Instance Requests` (L-3819A6DF) has no room for 4 more vCPUs of "
        "g6.xlarge "
        "in us-east-1"
    )
    assert "counts them for some minutes more" in said
    asyncio.run(provider.release(first.id))


def test_no_capacity_in_any_zone(cloud: Cloud, tmp_path: Path) -> None:
    """Every zone that has the type was asked, each with its reason."""
    cloud.fake.capacity[(SMALL, "")] = 1
    said = refused(cloud, tmp_path, an_order(count=2), border.OutOfCapacity)
    zones = {call.params["SubnetId"] for call in cloud.fake.made("RunInstances")}
    assert len(zones) == len(cloud.fake.made("RunInstances")) > 1
    assert said.startswith(
        "no zone of us-east-1 has 2 x g6.xlarge: We currently do not have sufficient g6.xlarge"
    )
    assert said.count("InsufficientInstanceCapacity") == min(len(zones), 6)
    assert cloud.fake.groups == {}


def test_no_capacity_in_the_zone_that_was_asked(cloud: Cloud, tmp_path: Path) -> None:
    cloud.fake.capacity[(SMALL, "us-east-1b")] = 0
    with pytest.raises(border.OutOfCapacity) as caught:
        asyncio.run(
            a_provider(tmp_path, cloud.clock, cloud.account).ensure(an_order(zone="us-east-1b", spot=True))
        )
    assert caught.value.scope == "g6.xlarge (spot) in us-east-1b"
    assert "capacity in the Availability Zone you requested (us-east-1b)" in str(caught.value)


def test_the_next_zone_is_taken(cloud: Cloud, tmp_path: Path) -> None:
    cloud.fake.capacity |= {(SMALL, "us-east-1a"): 0, (SMALL, "us-east-1b"): 1}
    provider = a_provider(tmp_path, cloud.clock, cloud.account)
    claim = an_order(count=2)
    asyncio.run(provider.ensure(claim))
    zones = {each.placement.availability_zone for each in cloud.fake.tagged(CLAIM, claim.id)}
    assert len(zones) == 1
    assert zones.isdisjoint({"us-east-1a", "us-east-1b"})
    asyncio.run(provider.release(claim.id))


def test_an_image_of_the_wrong_architecture(cloud: Cloud, tmp_path: Path) -> None:
    image = cloud.fake.add_image(REGION, "my-arm", "arm64")
    said = refused(cloud, tmp_path, with_wish(an_order(), image_id=image), border.RequestRefused)
    assert said == (
        f"the image {image} (my-arm) is for arm64, and g6.xlarge is x86_64: give an image for x86_64, or ask "
        f"for "
        "machines with `arch: arm64`"
    )
    said = refused(cloud, tmp_path, with_wish(an_order(), image_id="ami-0404"), border.RequestRefused)
    assert said == (
        "there is no image ami-0404 in us-east-1: ids of images are of one region; give it as `image_id: "
        "{us-east-1: ami-...}`, or leave it out"
    )
    by_region = with_wish(an_order(), extra='{"image_id":{"us-west-2":"ami-1"}}')
    assert refused(cloud, tmp_path, by_region, border.RequestRefused) == (
        "`image_id` has no image for us-east-1: it has us-west-2"
    )


def test_labels_that_aws_keeps_for_itself(cloud: Cloud, tmp_path: Path) -> None:
    claim = with_wish(an_order(), labels=(("aws:team", "x"),))
    assert refused(cloud, tmp_path, claim, border.RequestRefused) == (
        "the label `aws:team` begins with `aws:`, which AWS keeps for itself"
    )


def test_a_capacity_reservation(cloud: Cloud, tmp_path: Path) -> None:
    def asking(id: str, count: int = 1) -> Claim:
        return with_wish(an_order(count=count), config=f'{{"aws":{{"capacity_reservation":"{id}"}}}}')

    cloud.fake.reservations += [
        CapacityReservation(id="cr-1", region=REGION, zone="us-east-1c", kind=SMALL, count=1, is_block=True),
        CapacityReservation(id="cr-2", region=REGION, zone="us-east-1a", kind="p4d.24xlarge", count=1),
        CapacityReservation(
            id="cr-3", region=REGION, zone="us-east-1a", kind=SMALL, count=1, state="expired"
        ),
    ]
    findings = asyncio.run(a_provider(tmp_path, cloud.clock, cloud.account).check())
    assert [each.what for each in findings if each.what.startswith("reserved")] == [
        "reserved in us-east-1: cr-1 (1 of 1 x g6.xlarge free in us-east-1c), cr-2 (1 of 1 x "
        "p4d.24xlarge free in us-east-1a); `config: {aws: {capacity_reservation: ID}}` uses one"
    ]
    assert refused(cloud, tmp_path, asking("cr-9"), border.RequestRefused) == (
        "there is no capacity reservation cr-9 in us-east-1"
    )
    assert refused(cloud, tmp_path, asking("cr-2"), border.RequestRefused) == (
        "the capacity reservation cr-2 is for p4d.24xlarge, not g6.xlarge"
    )
    assert refused(cloud, tmp_path, asking("cr-3"), border.RequestRefused) == (
        "the capacity reservation cr-3 is expired, not active"
    )
    assert refused(cloud, tmp_path, asking("cr-1", 2), border.OutOfCapacity) == (
        "the capacity reservation cr-1 has 1 of 2 machines free"
    )
    cloud.fake.capacity[(SMALL, "us-east-1c")] = 0
    provider, claim = a_provider(tmp_path, cloud.clock, cloud.account), asking("cr-1")
    asyncio.run(provider.ensure(claim))
    *_, order = cloud.fake.made("RunInstances")
    assert order.params["InstanceMarketOptions.MarketType"] == "capacity-block"
    asyncio.run(provider.release(claim.id))


def test_spot_machines_cannot_rest(cloud: Cloud, tmp_path: Path) -> None:
    claim = msgspec.structs.replace(an_order(spot=True), desired=Desired.STOP)
    assert refused(cloud, tmp_path, claim, border.Unsupported) == (
        "spot machines of Amazon Web Services cannot rest: they can only go"
    )


def test_throttling_is_waited_out(cloud: Cloud, tmp_path: Path) -> None:
    cloud.fake.throttle("DescribeInstances", times=100)
    provider, claim = a_provider(tmp_path, cloud.clock, cloud.account), an_order()
    with pytest.raises(border.Transient) as caught:
        asyncio.run(provider.ensure(claim))
    assert str(caught.value) == "AWS in us-east-1: Request limit exceeded (RequestLimitExceeded)"
    assert cloud.fake.made("RunInstances") == []
    cloud.fake.refusals.clear()
    cloud.clock.s += 3600
    asyncio.run(provider.ensure(claim))
    assert len(cloud.fake.tagged(CLAIM, claim.id)) == 1
    asyncio.run(provider.release(claim.id))


def test_check_tells_of_machines_that_another_server_left(cloud: Cloud, tmp_path: Path) -> None:
    """Found by tag in every region, reported, and left alone."""
    other = a_provider(tmp_path / "other", cloud.clock, cloud.account)
    left = an_order(region="us-west-2")
    asyncio.run(other.ensure(left))
    (machine,) = cloud.fake.tagged(CLAIM, left.id)
    mine = a_provider(tmp_path / "mine", cloud.clock, cloud.account)
    (bad,) = [each for each in asyncio.run(mine.check()) if not each.ok]
    assert bad.what == f"machines of claims that this server does not know, 1: {left.id}-0"
    assert f"terminate-instances --region us-west-2 --instance-ids {machine.id}`" in bad.hint
    assert [each.what for each in asyncio.run(other.check()) if not each.ok] == []
    asyncio.run(other.release(left.id))


def test_machines_at_rest_wait_for_room_where_their_disks_are(cloud: Cloud, tmp_path: Path) -> None:
    """No capacity, or no quota, when they are to start again: nothing is given up, they are asked again."""
    provider, claim = a_provider(tmp_path, cloud.clock, cloud.account), an_order()
    asyncio.run(provider.ensure(claim))
    asyncio.run(provider.ensure(msgspec.structs.replace(claim, desired=Desired.STOP)))
    cloud.fake.refuse("StartInstances", "InsufficientInstanceCapacity", "Insufficient capacity.")
    with pytest.raises(
        border.Transient, match="the machines at rest cannot start yet: Insufficient capacity"
    ):
        asyncio.run(provider.ensure(claim))
    asyncio.run(provider.ensure(claim))
    assert len(cloud.fake.tagged(CLAIM, claim.id)) == 1
    asyncio.run(provider.release(claim.id))
