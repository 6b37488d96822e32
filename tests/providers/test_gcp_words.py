"""What is special at Google Cloud: credentials, texts of refusals, zones, networks, disks, operations that
fail late, and what an order says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from gcp_world import World, a_claim_for, in_network

from argosy.infra import border
from argosy.infra.provider import Want
from argosy.model.facts import ClaimState
from argosy.model.offer import Offer
from argosy.model.phases import Desired
from argosy.testing.conformance.cloud import MovedClock
from argosy.testing.fake_cloud import Answer, FakeMachine
from argosy.testing.fake_gcp import ACCOUNT, REFRESH, FakeGcp
from argosy.testing.fake_gcp_words import Properties


@pytest.fixture(scope="module")
def google() -> Iterator[tuple[FakeGcp, MovedClock]]:
    clock = MovedClock()
    with FakeGcp(now=clock.now_s) as fake:
        yield fake, clock


@pytest.fixture
def world(google: tuple[FakeGcp, MovedClock], tmp_path: Path) -> World:
    fake, clock = google
    fake.reset()
    return World(fake, clock, tmp_path, fake.sign_in(tmp_path))


def ordered(machine: FakeMachine) -> Properties:
    found = machine.extra["order"]
    assert isinstance(found, Properties)
    return found


# -- credentials --------------------------------------------------------------------------------------------


def checked(google: tuple[FakeGcp, MovedClock], root: Path, environ: dict[str, str]) -> list[str]:
    world = World(*google, root, environ)
    found: list[str] = []

    async def act() -> None:
        for finding in await world.driver.check():
            found.append(finding.what if finding.ok else f"{finding.what}; {finding.hint}")

    world.run(act)
    assert not [text for text in found if REFRESH in text or "PRIVATE" in text]
    return found


@pytest.mark.parametrize("way", ["person", "service", "acts", "machine"])
def test_ways_to_sign_in(way: str, google: tuple[FakeGcp, MovedClock], tmp_path: Path) -> None:
    fake = google[0]
    fake.reset()
    fake.limits["", "GPUS_ALL_REGIONS"] = 16.0
    environ = fake.environ()
    if way != "machine":
        environ = fake.sign_in(tmp_path, service=way == "service", acts=way == "acts")
    if way == "acts":
        environ["GOOGLE_CLOUD_PROJECT"] = "lab-1"
    who = {
        "person": "application default credentials of a person",
        "service": f"the service account {ACCOUNT}",
        "acts": f"the service account {ACCOUNT}",
        "machine": "the service account of this machine",
    }[way]
    assert checked(google, tmp_path, environ) == [
        f"{who} may use the project lab-1",
        "it may start and end machines",
        "3 regions can be used; the quota GPUS_ALL_REGIONS is 16",
        "the network `default` is there",
    ]


@pytest.mark.parametrize("way", ["file", "url", "acts"])
def test_a_token_of_another_identity_provider_is_exchanged(
    way: str, google: tuple[FakeGcp, MovedClock], tmp_path: Path
) -> None:
    fake = google[0]
    fake.reset()
    url = f"{fake.url}/identity" if way == "url" else ""
    environ = fake.federate(tmp_path, acts=way == "acts", url=url) | {"GOOGLE_CLOUD_PROJECT": "lab-1"}
    who = f"the service account {ACCOUNT}" if way == "acts" else "a token of github"
    assert checked(google, tmp_path, environ)[0] == f"{who} may use the project lab-1"
    if way == "file":
        (tmp_path / "token").write_text("another")
        (said,) = checked(google, tmp_path, environ)
        assert said.startswith("Google Cloud does not accept the credentials: The size of mapped attribute")
        (tmp_path / "token").write_text("")
        assert "token holds no token; `credential_source`" in checked(google, tmp_path, environ)[0]


def test_without_credentials(google: tuple[FakeGcp, MovedClock], tmp_path: Path) -> None:
    google[0].reset()
    environ = {"GCE_METADATA_HOST": "127.0.0.1:9", "GOOGLE_CLOUD_PROJECT": "lab-1"}
    assert checked(google, tmp_path, environ) == [
        "Google Cloud has no credentials to use: GOOGLE_APPLICATION_CREDENTIALS is not set, there is no "
        f"{tmp_path}/.config/gcloud/application_default_credentials.json, and this is no machine of "
        "Google's; sign in with `gcloud auth application-default login`"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            None,
            "PATH cannot be read (No such file or directory); GOOGLE_APPLICATION_CREDENTIALS names a file of "
            "credentials, or `gcloud auth application-default login` makes one",
        ),
        ("{", "PATH holds no credentials of Google; `gcloud auth application-default login` makes some"),
        (
            '{"type": "gdch_service_account"}',
            "credentials of the type `gdch_service_account` cannot be used here; give a key of a "
            "service account in "
            "GOOGLE_APPLICATION_CREDENTIALS, or sign in with `gcloud auth application-default login`",
        ),
        (
            '{"type": "external_account", "credential_source": {"environment_id": "aws1"}}',
            "the `external_account` credentials take their token from a role of AWS, which is not read here; "
            "name a `file` or a `url` in `credential_source` (`gcloud iam workload-identity-pools "
            "create-cred-config --credential-source-file=FILE`)",
        ),
        (
            '{"type": "external_account", "credential_source": {"file": "/nowhere/token"}}',
            "/nowhere/token, in which `external_account` credentials look for a token, cannot be read (No "
            "such file or directory); whoever makes the token has to write it there",
        ),
        (
            '{"type": "service_account", "client_email": "a@b", "private_key": "x"}',
            "the key of a@b is damaged; make another one with `gcloud iam service-accounts keys create FILE "
            "--iam-account a@b`",
        ),
        (
            '{"type": "authorized_user", "refresh_token": "old", "client_id": "x"}',
            "Google Cloud does not accept the credentials: Token has been expired or "
            "revoked. (invalid_grant); "
            "`gcloud auth application-default login`",
        ),
    ],
)
def test_credentials_that_are_none(
    text: str | None, said: str, google: tuple[FakeGcp, MovedClock], tmp_path: Path
) -> None:
    google[0].reset()
    path = tmp_path / "key.json"
    if text is not None:
        path.write_text(text)
    environ = {**google[0].environ(), "GOOGLE_APPLICATION_CREDENTIALS": str(path)}
    environ["GOOGLE_CLOUD_PROJECT"] = "lab-1"
    assert checked(google, tmp_path, environ) == [said.replace("PATH", str(path))]


def test_what_is_not_allowed_is_found_before_an_order(
    google: tuple[FakeGcp, MovedClock], tmp_path: Path
) -> None:
    fake = google[0]
    fake.reset()
    fake.forbidden = {"compute.instances.create", "compute.disks.create"}
    assert checked(google, tmp_path, fake.sign_in(tmp_path))[1:] == [
        "application default credentials of a person may not do all that a launch needs in lab-1, it lacks "
        "compute.disks.create, compute.instances.create; `gcloud projects "
        "add-iam-policy-binding lab-1 --member "
        "MEMBER --role roles/compute.instanceAdmin.v1`"
    ]
    fake.refuse("test_permissions", fake.api_off())
    assert checked(google, tmp_path, fake.sign_in(tmp_path))[1] == (
        "what it may do is not known: the Cloud Resource Manager API does not tell"
    )


def test_machines_of_others_are_told(google: tuple[FakeGcp, MovedClock], tmp_path: Path) -> None:
    fake = google[0]
    fake.reset()
    world = World(*google, tmp_path, fake.sign_in(tmp_path))
    claim = a_claim_for(zone="us-central1-a")
    world.run(lambda: world.driver.ensure(claim))
    found = checked(google, tmp_path / "other", fake.sign_in(tmp_path))
    assert found[-1].startswith(f"machines of claims that this server does not know, 1: {claim.id}-0; ")
    assert found[-1].endswith(f"or `gcloud compute instances delete {claim.id}-0 --zone us-central1-a`")


def test_the_project_of_gcloud(google: tuple[FakeGcp, MovedClock], tmp_path: Path) -> None:
    fake = google[0]
    fake.reset()
    environ = fake.sign_in(tmp_path)
    path = Path(environ["GOOGLE_APPLICATION_CREDENTIALS"])
    told = json.loads(path.read_text())
    del told["quota_project_id"]
    path.write_text(json.dumps(told))
    assert checked(google, tmp_path, environ) == [
        "no project of Google Cloud is set; `gcloud config set project ID`, or set GOOGLE_CLOUD_PROJECT "
        "(`gcloud projects list` shows yours)"
    ]
    folder = tmp_path / ".config/gcloud"
    (folder / "configurations").mkdir(parents=True)
    (folder / "active_config").write_text("work\n")
    (folder / "configurations/config_work").write_text("[compute]\nproject = no\n[core]\nproject = lab-1\n")
    assert "may use the project lab-1" in checked(google, tmp_path, environ)[0]


def test_a_token_is_used_until_it_ends(world: World) -> None:
    async def act() -> None:
        await world.driver.observe([])
        await world.driver.observe([])
        assert len(world.fake.called("token")) == 1
        world.clock.s += 3600
        await world.driver.observe([])
        assert len(world.fake.called("token")) == 2
        world.fake.tokens.clear()  # taken back
        await world.driver.observe([])
        assert len(world.fake.called("token")) == 3

    world.run(act)


# -- refusals -----------------------------------------------------------------------------------------------

Refusing = Callable[[FakeGcp], Answer]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (FakeGcp.api_off, "`gcloud services enable compute.googleapis.com` turns it on"),
        (
            FakeGcp.no_billing,
            "`gcloud billing projects link PROJECT --billing-account ACCOUNT` turns billing on",
        ),
        (FakeGcp.suspended, "https://console.cloud.google.com/cloud-resource-manager"),
        (
            FakeGcp.no_project,
            "there is no project `lab-1`, or these credentials may not see it (The resource 'projects/lab-1' "
            "was not found (notFound)); `gcloud projects list` shows yours, GOOGLE_CLOUD_PROJECT sets it",
        ),
        (
            lambda fake: fake.error(
                403,
                "forbidden",
                "Required 'compute.instances.create' permission for 'projects/lab-1/zones/z'",
            ),
            "--role roles/compute.instanceAdmin.v1` (docs/gcp.md has the whole list)",
        ),
    ],
    ids=["api-off", "billing", "suspended", "no-project", "no-permission"],
)
def test_an_account_that_may_not(answer: Refusing, said: str, world: World) -> None:
    world.fake.refuse("aggregated", answer(world.fake))
    error = world.refusal(a_claim_for())
    assert isinstance(error, border.CredentialsRejected)
    assert str(error).endswith(said)


@pytest.mark.parametrize(
    ("claim", "kind", "said"),
    [
        (
            a_claim_for(region="mars-west1"),
            border.RequestRefused,
            "Google Cloud has no region `mars-west1`; there are europe-west4, us-central1, us-east1, ... "
            "(`gcloud compute regions list`)",
        ),
        (
            a_claim_for("n9-huge-1"),
            border.RequestRefused,
            "Google Cloud has no type of machine `n9-huge-1` that this project may use; `gcloud compute "
            "machine-types list` shows them",
        ),
        (
            a_claim_for("g2-standard-4", region="us-east1"),
            border.OutOfCapacity,
            "Google Cloud has no zone with g2-standard-4 in us-east1",
        ),
        (
            a_claim_for(zone="us-central1-z"),
            border.RequestRefused,
            "Google Cloud says: Invalid value for field 'zone': 'us-central1-z'. Unknown zone. (invalid)",
        ),
        (
            a_claim_for(image_id="projects/lab-1/global/images/none"),
            border.RequestRefused,
            "Google Cloud says: The resource 'projects/lab-1/global/images/none' was not found (notFound); "
            "`gcloud compute images list` shows what there is; asked for n2-standard-4 in us-central1-a",
        ),
        (
            a_claim_for(image_id="some/where"),
            border.RequestRefused,
            "`some/where` is no image of Google Cloud: those are called "
            "`projects/PROJECT/global/images/NAME` or "
            "`projects/PROJECT/global/images/family/FAMILY`, or by their name alone in your project; `gcloud "
            "compute images list` shows them",
        ),
        (
            a_claim_for(labels=(("Team", "A"),)),
            border.RequestRefused,
            "Google Cloud takes no label `Team: A`: keys and values are at most 63 "
            "lower-case letters, digits, "
            "`-` and `_`, and a key begins with a letter",
        ),
        (
            a_claim_for(config={"vpc": "x", "vpc_name": 3}),
            border.RequestRefused,
            "`config.gcp` of the task: Expected `str`, got `int` - at `$.vpc_name`",
        ),
        (
            a_claim_for(networking=in_network("nowhere")),
            border.RequestRefused,
            "there is no network `nowhere` in project lab-1; name one of `gcloud compute networks list` in "
            "`networking: {vpc_name: NAME}`, or make it: `gcloud compute networks create nowhere "
            "--subnet-mode=auto`",
        ),
        (
            a_claim_for(region="us-east1", networking=in_network("lab")),
            border.RequestRefused,
            "the network `lab` has no subnet in us-east1; it has some in: us-central1",
        ),
        (
            a_claim_for(networking=in_network("", "none")),
            border.RequestRefused,
            "there is no subnet `none` in us-central1; `gcloud compute networks subnets list --regions "
            "us-central1` shows what there is",
        ),
        (
            a_claim_for(networking=in_network("default", "gpu")),
            border.RequestRefused,
            "the subnet `gpu` is not of the network `default`, but of `lab`",
        ),
        (
            a_claim_for(config={"specific_reservations": ["none"]}),
            border.RequestRefused,
            "Google Cloud says: The resource 'projects/lab-1/zones/us-central1-a/reservations/none' was not "
            "found (notFound); `gcloud compute reservations list` shows what there is",
        ),
        (
            a_claim_for(config={"placement_policy": "compact"}, count=2, kind="n1-standard-8"),
            border.RequestRefused,
            "machines of the series N1 cannot be placed close together: leave "
            "`placement_policy` out, or ask for "
            "another type",
        ),
        (
            a_claim_for(spot=True, config={"managed_instance_group": {"run_duration": 60}}),
            border.RequestRefused,
            "a flexible start has no spot machines: leave out one of the two",
        ),
        (
            a_claim_for(config={"managed_instance_group": {"run_duration": 60, "provision_timeout": 5}}),
            border.RequestRefused,
            "Google lets an order wait 90 to 7200 seconds (`provision_timeout`), not 5",
        ),
    ],
)
def test_orders_that_cannot_be(
    claim: object, kind: type[border.BorderError], said: str, world: World
) -> None:
    error = world.refusal(claim)  # type: ignore[arg-type]
    assert type(error) is kind, error
    assert str(error) == said


def test_a_quota_says_which_one_it_is(world: World) -> None:
    world.fake.limits["", "GPUS_ALL_REGIONS"] = 0.0
    error = world.refusal(a_claim_for("g2-standard-4", zone="us-central1-a", accelerator="L4"))
    assert isinstance(error, border.QuotaExceeded)
    assert (error.what, error.limit) == ("GPUS_ALL_REGIONS", "0")
    assert str(error) == (
        "the quota `GPUS_ALL_REGIONS` of Google Cloud is 0 globally, and g2-standard-4 "
        "in us-central1-a needs "
        "more: Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally. (QUOTA_EXCEEDED); raise it at "
        "https://console.cloud.google.com/iam-admin/quotas, or ask for something else"
    )


def closed(world: World) -> list[tuple[str, str, str, str]]:
    found: list[Offer] = []

    async def act() -> None:
        found.extend(await world.vendor.quote(Want()))

    world.run(act)
    return [(each.region, each.shape.instance_type, each.capacity.value, each.closed) for each in found]


def test_quotas_of_0_close_offers(world: World) -> None:
    world.fake.limits["us-central1", "NVIDIA_L4_GPUS"] = 0.0
    world.fake.limits["us-central1", "PREEMPTIBLE_NVIDIA_L4_GPUS"] = 4.0
    world.fake.limits["us-east1", "NVIDIA_A100_80GB_GPUS"] = 0.0
    said = closed(world)
    text = "the quota NVIDIA_L4_GPUS of the project is 0 in us-central1"
    assert ("us-central1", "g2-standard-48", "on-demand", text) in said
    assert {capacity for region, _, capacity, _ in said if region == "us-central1"} == {"on-demand"}
    assert {capacity for region, _, capacity, _ in said if region == "us-east1"} == {"on-demand", "spot"}
    world.clock.s += 301
    world.fake.limits["", "GPUS_ALL_REGIONS"] = 0.0
    said = closed(world)
    assert ("", "a3-highgpu-8g", "spot", "the quota GPUS_ALL_REGIONS of the project is 0") in said


# -- zones, operations --------------------------------------------------------------------------------------


def test_another_zone_is_tried(world: World) -> None:
    world.fake.capacity["g2-standard-4", "us-central1-a"] = 1
    claim = a_claim_for("g2-standard-4", count=2, accelerator="L4")

    async def act() -> None:
        await world.driver.ensure(claim)
        assert {each.zone for each in world.fake.machines()} == {"us-central1-b"}
        assert len(world.fake.disks) == 2
        assert (await world.fact(claim)).state is ClaimState.HELD

    world.run(act)


def test_no_zone_has_it(world: World) -> None:
    world.fake.capacity["g2-standard-4", ""] = 1
    error = world.refusal(a_claim_for("g2-standard-4", count=2, accelerator="L4"))
    assert isinstance(error, border.OutOfCapacity)
    assert str(error).startswith(
        "no zone of us-central1 has 2 x g2-standard-4: Google Cloud has no g2-standard-4 "
        "in us-central1-a: The "
        "zone 'projects/lab-1/zones/us-central1-a' does not have enough resources "
        "available to fulfill the request."
    )
    assert "g2-standard-4 in us-central1-b" in str(error)


def test_a_gang_that_a_quota_refuses_says_which(world: World) -> None:
    world.fake.quota = 1
    error = world.refusal(a_claim_for(zone="us-central1-a", count=2))
    assert isinstance(error, border.QuotaExceeded)
    assert (error.what, error.limit) == ("CPUS", "1")


def test_a_gang_that_gives_no_reason(world: World) -> None:
    world.fake.capacity["n2-standard-4", ""] = 1
    world.fake.refuse("zone_operations", world.fake.error(403, "forbidden", "no permission"))
    error = world.refusal(a_claim_for(zone="us-central1-a", count=2))
    assert isinstance(error, border.OutOfCapacity)
    assert str(error) == (
        "Google Cloud has not enough n2-standard-4 in us-central1-a: Requested minimum "
        "count of 2 VMs could not "
        "be created. (VM_MIN_COUNT_NOT_REACHED)"
    )


def test_an_order_that_fails_late_says_why(world: World) -> None:
    world.fake.op_s = 60.0
    world.fake.capacity["g2-standard-4", ""] = 0
    claim = a_claim_for("g2-standard-4", zone="us-central1-a", accelerator="L4")

    async def act() -> None:
        await world.driver.ensure(claim)
        assert (await world.fact(claim)).state is ClaimState.PENDING
        world.clock.s += 61
        fact = await world.fact(claim)
        assert fact.state is ClaimState.GONE
        assert "does not have enough resources" in fact.detail
        with pytest.raises(border.OutOfCapacity, match="has no g2-standard-4 in us-central1-a"):
            await world.driver.ensure(claim)
        await world.driver.release(claim.id)
        assert list(await world.driver.observe([])) == []

    world.run(act)


def test_a_spot_machine_that_is_taken_back_leaves_no_disk(world: World) -> None:
    claim = a_claim_for(spot=True, zone="us-central1-a", count=2)

    async def act() -> None:
        await world.driver.ensure(claim)
        machines = world.fake.machines()
        rules = ordered(machines[0]).scheduling
        assert (rules.provisioning_model, rules.instance_termination_action) == ("SPOT", "DELETE")
        assert (await world.fact(claim)).state is ClaimState.HELD
        world.fake.preempt(machines[1])
        fact = await world.fact(claim)  # at once, though the order is young
        assert fact.state is ClaimState.PREEMPTED
        assert fact.detail == f"Google Cloud took the spot machine {machines[1].name} in us-central1-a back"
        await world.driver.release(claim.id)
        assert world.fake.disks == {}

    world.run(act)


def test_a_listing_that_forgets_a_machine_is_not_believed(world: World) -> None:
    claim = a_claim_for(zone="us-central1-a")

    async def act() -> None:
        await world.driver.ensure(claim)
        assert (await world.fact(claim)).state is ClaimState.HELD
        world.fake.lag_s = 30.0
        assert (await world.fact(claim)).state is ClaimState.PENDING
        world.fake.lag_s = 0.0
        assert (await world.fact(claim)).state is ClaimState.HELD
        world.fake.end(world.fake.machines()[0])  # somebody else deletes it
        fact = await world.fact(claim)
        assert (fact.state, fact.detail) == (
            ClaimState.GONE,
            f"{claim.id}-0 in us-central1-a has ended: it is no longer there",
        )

    world.run(act)


def test_all_pages_are_read(world: World) -> None:
    world.fake.page = 1
    claim = a_claim_for(count=3)

    async def act() -> None:
        await world.driver.ensure(claim)
        assert [node.index for node in (await world.fact(claim)).nodes] == [0, 1, 2]

    world.run(act)


def test_a_zone_that_does_not_answer_holds_what_it_held(world: World, tmp_path: Path) -> None:
    claim = a_claim_for(zone="us-central1-a")

    async def act() -> None:
        await world.driver.ensure(claim)
        world.clock.s += 300
        world.fake.silent = {"us-central1-a"}
        with pytest.raises(border.Transient, match="cannot list us-central1-a"):
            await world.fact(claim)
        world.fake.silent = set()
        assert (await world.fact(claim)).state is ClaimState.HELD
        world.fake.silent = {"us-central1-a"}
        assert (await world.fact(claim)).state is ClaimState.HELD
        with pytest.raises(border.Transient, match="Google Cloud cannot list us-central1-a at present"):
            await other.driver.observe([])
        await other.driver.disconnect()

    other = World(world.fake, world.clock, tmp_path / "other", world.fake.sign_in(tmp_path))
    world.run(act)


def test_cards_for_rdma(world: World) -> None:
    world.fake.networks["rdma"] = {"us-central1": "r"}
    names = in_network("", "gpu", "gpu", "r", "r")
    _, order = made(world, "a4-highgpu-8g", accelerator="B200", networking=names, network_tier="best")
    kinds = [card.nic_type for card in order.network_interfaces]
    assert kinds == ["GVNIC", "GVNIC", "MRDMA", "MRDMA"]
    assert [bool(card.access_configs) for card in order.network_interfaces] == [True, False, False, False]


def test_machines_at_rest_wait_for_room(world: World) -> None:
    claim = a_claim_for("a3-highgpu-8g", zone="us-central1-a", accelerator="H100")
    at_rest = msgspec.structs.replace(claim, desired=Desired.STOP)

    async def act() -> None:
        await world.driver.ensure(claim)
        await world.driver.ensure(at_rest)
        assert (await world.fact(claim)).state is ClaimState.STOPPED
        world.fake.capacity["a3-highgpu-8g", "start"] = 0
        with pytest.raises(border.Transient, match="the machines at rest cannot start yet: Google"):
            await world.driver.ensure(claim)
        world.fake.capacity.clear()
        await world.driver.ensure(claim)
        assert (await world.fact(claim)).state is ClaimState.HELD

    world.run(act)


# -- what an order says -------------------------------------------------------------------------------------


def made(world: World, *args: str, **wish: object) -> tuple[FakeMachine, Properties]:
    claim = a_claim_for(*args, **wish)  # type: ignore[arg-type]

    async def act() -> None:
        await world.driver.ensure(claim)

    world.run(act)
    machine = world.fake.machines()[0]
    return machine, ordered(machine)


def test_rules_are_made_once_for_a_network(world: World) -> None:
    machine, order = made(world, ports=("8000", "9000-9010"))
    assert [name.rpartition("-")[0] for name in world.fake.firewalls][:2] == ["argosy-ssh", "argosy-inside"]
    ssh = world.fake.firewalls["argosy-ssh-default"]
    assert (ssh.source_ranges, ssh.target_tags, ssh.allowed[0].ports) == (["0.0.0.0/0"], ["argosy"], ["22"])
    (name,) = [each for each in world.fake.firewalls if each.startswith("argosy-ports")]
    assert world.fake.firewalls[name].allowed[0].ports == ["8000", "9000-9010"]
    assert order.tags.items[0] == "argosy"
    assert world.fake.firewalls[name].target_tags == order.tags.items[1:]
    asyncio.run(world.driver.ensure(a_claim_for()))
    assert len(world.fake.called("add_firewall")) == 3
    assert machine.name.endswith("-0")


def test_who_may_not_make_rules_uses_those_of_others(world: World) -> None:
    text = "Required 'compute.firewalls.create' permission for 'projects/lab-1/global/firewalls/x'"
    world.fake.refuse("add_firewall", world.fake.error(403, "forbidden", text), 2)
    made(world)
    assert world.fake.firewalls == {}


def test_networks_of_ones_own(world: World) -> None:
    _, order = made(world, networking=in_network("lab", tags=("gpu-net",)), config={"use_internal_ips": True})
    (card,) = order.network_interfaces
    assert card.subnetwork == "projects/lab-1/regions/us-central1/subnetworks/gpu"
    assert card.access_configs == []
    assert order.tags.items == ["gpu-net"]
    assert world.fake.firewalls == {}
    assert order.labels["argosy-inside"] == "1"


def test_machines_behind_a_jump_host(google: tuple[FakeGcp, MovedClock], tmp_path: Path) -> None:
    fake = google[0]
    fake.reset()
    environ = {**fake.sign_in(tmp_path), "ARGOSY_GCP_SSH_JUMP": "me@bastion:2222"}
    world = World(*google, tmp_path, environ)
    assert world.vendor.jumps == ("me@bastion:2222",)
    _, order = made(world)
    assert order.labels["argosy-inside"] == "1"


def test_gpus_disks_images_identity(world: World) -> None:
    _, n1 = made(world, "n1-standard-8", accelerator="T4", config={"remote_identity": ACCOUNT})
    assert n1.guest_accelerators[0].accelerator_type.endswith("/acceleratorTypes/nvidia-tesla-t4")
    assert n1.scheduling.on_host_maintenance == "TERMINATE"
    assert n1.disks[0].initialize_params.source_image.endswith(
        "ubuntu-accelerator-2204-amd64-with-nvidia-580"
    )
    assert n1.service_accounts[0].email == ACCOUNT
    user_data = next(item.value for item in n1.metadata.items if item.key == "user-data")
    assert "set_host_keys = false" in user_data


@pytest.mark.parametrize(
    ("kind", "model", "tier", "disk"),
    [
        ("n2-standard-4", None, "low", "pd-standard"),
        ("g2-standard-4", "L4", "low", "pd-balanced"),
        ("n2-standard-4", None, "high", "pd-ssd"),
        ("a4-highgpu-8g", "B200", "ultra", "hyperdisk-balanced"),
    ],
)
def test_disks(kind: str, model: str | None, tier: str, disk: str, world: World) -> None:
    key = "projects/lab-1/locations/us-central1/keyRings/r/cryptoKeys/k"
    wish = {"disk_tier": tier, "disk_size_bytes": 200 << 30, "config": {"kms_key": key}}
    _, order = made(world, kind, accelerator=model, **wish)
    (boot,) = order.disks
    assert boot.initialize_params.disk_type.endswith(f"/{disk}")
    assert boot.initialize_params.disk_size_gb == "200"
    assert boot.auto_delete
    assert boot.disk_encryption_key is not None
    assert boot.disk_encryption_key.kms_key_name == key
    if tier == "ultra":
        assert boot.initialize_params.provisioned_iops == "40000"


def test_a_reservation_decides_the_zone(world: World) -> None:
    world.fake.reservations["block"] = "us-central1-b"
    machine, order = made(world, config={"specific_reservations": "block"})
    assert machine.zone == "us-central1-b"
    assert order.reservation_affinity.values == ["block"]
    assert order.scheduling.provisioning_model == "STANDARD"


def test_a_machine_that_ends_with_its_reservation(world: World) -> None:
    world.fake.reservations["block"] = "us-central1-b"
    config = {"specific_reservations": "block", "reservation_bound": True}
    _, order = made(world, "a4-highgpu-8g", accelerator="B200", config=config)
    assert order.scheduling.provisioning_model == "RESERVATION_BOUND"
    assert order.scheduling.instance_termination_action == "DELETE"


def test_a_gang_stands_close_and_leaves_no_policy(world: World) -> None:
    world.fake.end_s = 30.0
    claim = a_claim_for("c4-standard-48", count=2, network_tier="best")

    async def act() -> None:
        await world.driver.ensure(claim)
        (policy,) = world.fake.policies
        assert policy == f"us-central1/argosy-{claim.id}"
        order = ordered(world.fake.machines()[0])
        assert order.network_interfaces[0].nic_type == "GVNIC"
        await world.driver.release(claim.id)
        assert world.fake.policies  # while machines end
        world.clock.s += 31
        await world.driver.observe([])
        await world.driver.observe([])
        assert world.fake.policies == {}

    world.run(act)


def test_a_flexible_start_is_ordered_one_by_one(world: World) -> None:
    queue = {"run_duration": 3600, "provision_timeout": 600}
    _, order = made(
        world, "a3-highgpu-8g", accelerator="H100", count=2, config={"managed_instance_group": queue}
    )
    assert len(world.fake.called("insert")) == 2
    assert order.scheduling.provisioning_model == "FLEX_START"
    assert order.scheduling.max_run_duration is not None
    assert order.scheduling.max_run_duration.seconds == "3600"
    body = world.fake.called("insert")[0].body
    assert body.params.request_valid_for_duration.seconds == "600"


def test_a_flexible_start_that_is_refused_leaves_nothing(world: World) -> None:
    world.fake.capacity["a3-highgpu-8g", ""] = 1
    claim = a_claim_for(
        "a3-highgpu-8g",
        accelerator="H100",
        count=2,
        config={"managed_instance_group": {"run_duration": 3600}},
    )
    assert isinstance(world.refusal(claim), border.OutOfCapacity)
