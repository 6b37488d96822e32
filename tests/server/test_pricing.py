"""Prices through the real API: the shipped catalog, a provider that quotes, the user's folder, budgets,
costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from argosy.api.costs import BudgetRequest
from argosy.api.location import Location
from argosy.client.client import Client
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.errors import ArgosyError, render_error
from argosy.model.kinds.cluster import ClusterSpec, ClusterStatus
from argosy.model.kinds.job import JobSpec
from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.phases import ClaimPhase, Outcome, WorkloadPhase
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.rows import Claim, Workload
from argosy.model.scheduling import Scheduling
from argosy.model.task import Task
from argosy.model.units import GIB, Bound
from argosy.server.spending import DAY_MS, HOUR_MS, Rates, Span, add_spending, grouped, month_of, spans_of
from argosy.store.accounts import Spending
from argosy.testing.idle_server import IdleServer, StaticProvider

A100 = Accelerator(model="A100", milli=8000)
EIGHT = Task(name="train", run="x", resources=(Resources(accelerator=A100),))


@pytest.fixture
def idle() -> Iterator[IdleServer]:
    with IdleServer() as running:
        yield running


@pytest.fixture
def client(idle: IdleServer) -> Client:
    return Client(Location(socket=idle.socket))


def wish(**fields: Any) -> Task:
    return Task(run="x", resources=(Resources(**fields),))


def refused(act: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(ArgosyError) as error:
        act(*arguments, **options)
    return render_error(error.value)


# -- plans ------------------------------------------------------------------------------------------


def test_a_plan_shows_clouds_and_chooses_none(client: Client) -> None:
    reply = client.plan(EIGHT, prices=True, limit=500)
    assert reply.plan.choices == ()
    assert {"aws", "gcp", "lambda"} <= {offer.provider for offer in reply.offers}
    prices = [offer.hourly_micro_usd for offer in reply.offers]
    assert prices == sorted(prices) and min(prices) > 0
    assert not any(offer.launchable for offer in reply.offers)
    assert {offer.capacity for offer in reply.offers} == {"on-demand"}  # spot was not asked for
    codes = {(each.provider, each.code) for each in reply.plan.rejected}
    assert {("pool", "accelerator"), ("aws", "not-in-use"), ("aws", "spot")} <= codes
    assert reply.fitting == len(reply.offers) > 50
    assert all(offer.source for offer in reply.offers)


def test_own_machines_come_first_when_they_are_cheapest(client: Client) -> None:
    reply = client.plan(wish(cpus=Bound(2000)), prices=True, limit=3)
    assert reply.offers[0].provider == "pool"
    assert reply.offers[0].launchable and reply.plan.choices[0].offer.provider == "pool"
    assert not any(offer.launchable for offer in reply.offers[1:])


def test_what_is_launched_is_as_without_prices(client: Client) -> None:
    task = wish(cpus=Bound(2000))
    assert client.plan(task).plan.choices == client.plan(task, prices=True).plan.choices
    assert client.plan(task).offers == ()


def test_machines_are_told_once(client: Client) -> None:
    reply = client.plan(EIGHT, prices=True, distinct=True, limit=4)
    machines = [(offer.provider, offer.instance_type) for offer in reply.offers]
    assert len(set(machines)) == len(machines) == 4
    assert sum(offer.places for offer in reply.offers) > 20


def test_totals_deadline_and_comparison(client: Client) -> None:
    task = msgspec.structs.replace(EIGHT, estimated_s=36_000, deadline_s=72_000)
    reply = client.plan(task, prices=True, compare=True, html=True)
    assert all(offer.total_micro_usd == offer.hourly_micro_usd * 10 for offer in reply.offers)
    assert reply.deadline.startswith("task `train` runs on spot ")
    assert reply.offers[0].capacity == "spot" and reply.text == ""
    assert [row.kind for row in reply.compared] == ["spot", "on-demand"]
    assert reply.compared[0].in_time is not None and reply.compared[0].in_time > 0.9
    assert reply.page.startswith("<!doctype html>") and "p4d.24xlarge" in reply.page


def test_a_deadline_that_cannot_be_met(client: Client) -> None:
    task = msgspec.structs.replace(EIGHT, estimated_s=36_000, deadline_s=7200)
    text = refused(client.plan, task, prices=True)
    assert text.startswith(
        "error: the deadline of 2h cannot be met: the earliest finish of task `train` is in 10h 5m, on "
    )
    assert "hint: set `deadline: " in text


def test_a_deadline_without_an_estimate_is_said(client: Client) -> None:
    task = msgspec.structs.replace(EIGHT, deadline_s=7200)
    assert (
        client.plan(task, prices=True).deadline
        == "the deadline is not weighed: `estimated_hours` is not known"
    )


def test_an_objective_that_does_not_exist(client: Client) -> None:
    assert refused(client.plan, EIGHT, prices=True, objective="fame") == (
        "error: `fame` is no objective\nhint: it is one of cost, time, carbon"
    )


def test_earlier_runs_tell_how_long_it_takes(idle: IdleServer, client: Client) -> None:
    task = msgspec.structs.replace(
        EIGHT, resources=(Resources(accelerator=A100, infra=Infra(provider="aws")),)
    )
    job = client.jobs_launch([Task(name="train", run="x")]).jobs[0]
    row = idle.do(idle.store.load(job.id))
    assert isinstance(row, Workload)
    started = row.created_ms
    claim = Claim(
        id="clm-1", workload_id=job.id, choice=_choice("aws", "p4d.24xlarge", Capacity.SPOT, 1), count=1,
        phase=ClaimPhase.GONE, requested_ms=started, gone_ms=started + 2,
    )  # fmt: skip
    done = msgspec.structs.replace(row, phase=WorkloadPhase.STARTING)
    for phase in (WorkloadPhase.STARTING, WorkloadPhase.RUNNING):
        (done,) = idle.do(idle.store.commit([msgspec.structs.replace(done, phase=phase, started_ms=started)]))
    ended = msgspec.structs.replace(
        done, phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED, ended_ms=started + 2 * HOUR_MS
    )
    idle.do(idle.store.commit([ended, claim]))
    offer = client.plan(task, prices=True, limit=1).offers[0]
    assert (offer.runtime_s, offer.basis) == (7200, "measured")


def test_a_managed_job_is_decided_with_the_duration_that_its_plan_weighed(
    idle: IdleServer, client: Client
) -> None:
    first = client.jobs_launch([Task(name="train", run="x")]).jobs[0]
    row = idle.do(idle.store.load(first.id))
    assert isinstance(row, Workload)
    done, started = row, row.created_ms
    for phase in (WorkloadPhase.STARTING, WorkloadPhase.RUNNING):
        (done,) = idle.do(idle.store.commit([msgspec.structs.replace(done, phase=phase, started_ms=started)]))
    ended = msgspec.structs.replace(
        done, phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED, ended_ms=started + 2 * HOUR_MS
    )
    choice = client.plan(Task(name="train", run="x")).plan.choices[0]
    claim = Claim(
        id="clm-1", workload_id=first.id, choice=choice, count=1,
        phase=ClaimPhase.GONE, requested_ms=started, gone_ms=started + 2,
    )  # fmt: skip
    idle.do(idle.store.commit([ended, claim]))
    again = Task(name="train", run="x", deadline_s=10 * 3600, estimated_s=9 * 3600)
    row = idle.do(idle.store.load(client.jobs_launch([again]).jobs[0].id))
    assert isinstance(row, Workload) and isinstance(row.spec, JobSpec)
    assert row.spec.task.estimated_s == 7200


def test_earlier_jobs_of_clusters_tell_it_too(idle: IdleServer, client: Client) -> None:
    made = client.launch(Task(name="train", run="x"), cluster="dev")
    assert made.job is not None
    row = idle.do(idle.store.load(made.job.id))
    assert isinstance(row, Workload)
    started, done = row.created_ms, row
    for phase in (WorkloadPhase.STARTING, WorkloadPhase.RUNNING):
        (done,) = idle.do(idle.store.commit([msgspec.structs.replace(done, phase=phase, started_ms=started)]))
    ended = msgspec.structs.replace(
        done, phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED, ended_ms=started + 3 * HOUR_MS
    )
    machine = _choice("aws", "m6i.2xlarge", Capacity.ON_DEMAND, 1)
    claim = _claim("clm-1", made.cluster_id, choice=machine, requested_ms=started)
    idle.do(idle.store.commit([ended, claim]))
    # It asked for no accelerator: what counts is the machine.
    reply = client.plan(
        Task(name="train", run="x", resources=(Resources(instance_type="m6i.2xlarge"),)), prices=True, limit=1
    )
    assert (reply.offers[0].runtime_s, reply.offers[0].basis) == (10_800, "measured")


# -- launches with deadlines and objectives ---------------------------------------------------------


def _cloud(*offers: Offer) -> StaticProvider:
    can = Capabilities(spot=True, multi_node=True)
    return StaticProvider(Manifest(name="nimbus", title="a cloud", capabilities=can), offers)


def _machine(region: str, capacity: Capacity, dollars: int, model: str = "A100") -> Offer:
    shape = Shape(
        instance_type=f"{model.lower()}-8", cpus_milli=96_000, memory_bytes=512 * GIB, accelerator=model,
        accelerators_milli=8000,
    )  # fmt: skip
    return Offer(
        provider="nimbus", region=region, shape=shape, capacity=capacity, price_micro_usd=dollars * 1_000_000
    )


@pytest.fixture
def nimbus() -> Iterator[tuple[IdleServer, Client]]:
    """A cloud with a driver: eight A100 on demand and as spot."""
    cloud = _cloud(_machine("east", Capacity.ON_DEMAND, 32), _machine("west", Capacity.SPOT, 10))
    with IdleServer(cloud) as running:
        yield running, Client(Location(socket=running.socket))


def _first_claim(idle: IdleServer, owner: str) -> Claim:
    return idle.do(idle.store.snapshot()).claims_of(owner)[0]


KEEPS = Scheduling(checkpoint=True)


def test_who_does_not_ask_for_spot_does_not_get_it(nimbus: tuple[IdleServer, Client]) -> None:
    idle, client = nimbus
    made = client.launch(EIGHT, cluster="c")
    assert made.plan is not None
    assert [choice.offer.capacity for choice in made.plan.choices] == [Capacity.ON_DEMAND]
    asked = msgspec.structs.replace(EIGHT, resources=(Resources(accelerator=A100, use_spot=True),))
    made = client.launch(asked, cluster="d")
    idle.order()
    assert _first_claim(idle, made.cluster_id).choice.offer.capacity is Capacity.SPOT


def test_a_managed_job_with_slack_is_planned_on_spot_and_without_on_demand(
    nimbus: tuple[IdleServer, Client],
) -> None:
    _, client = nimbus
    task = msgspec.structs.replace(EIGHT, estimated_s=10 * 3600, scheduling=KEEPS)
    relaxed = client.plan(msgspec.structs.replace(task, deadline_s=36 * 3600))
    assert [choice.offer.capacity.value for choice in relaxed.plan.choices] == ["spot", "on-demand"]
    assert relaxed.deadline.startswith("task `train` runs on spot nimbus/west a100-8: ")
    urgent = client.plan(msgspec.structs.replace(task, deadline_s=10 * 3600 + 600))
    assert [choice.offer.capacity.value for choice in urgent.plan.choices] == ["on-demand", "spot"]
    # As a cluster it would not recover: spot is not even looked at.
    cluster = client.plan(msgspec.structs.replace(task, deadline_s=36 * 3600), managed=False)
    assert [choice.offer.capacity.value for choice in cluster.plan.choices] == ["on-demand"]


def test_a_launch_refuses_a_deadline_that_cannot_be_met(nimbus: tuple[IdleServer, Client]) -> None:
    idle, client = nimbus
    task = msgspec.structs.replace(EIGHT, estimated_s=10 * 3600, deadline_s=8 * 3600)
    expected = (
        "error: the deadline of 8h cannot be met: the earliest finish of task `train` is in 10h 5m, on "
        "nimbus/east a100-8 "
        "on-demand for $322.67\n"
        "hint: set `deadline: 10.1h`, ask for faster accelerators, or for more nodes if the task scales "
        "with them"
    )
    assert refused(client.launch, task, cluster="c") == expected
    assert refused(client.jobs_launch, [task]) == expected
    assert refused(client.plan, task) == expected
    assert idle.do(idle.store.snapshot()).workloads == {}


def test_a_launch_with_a_deadline_is_recorded_with_its_reason(nimbus: tuple[IdleServer, Client]) -> None:
    _, client = nimbus
    task = msgspec.structs.replace(EIGHT, estimated_s=10 * 3600, deadline_s=12 * 3600)
    made = client.launch(task, cluster="c")
    told = [event.text for event in client.events(made.cluster_id).events if event.code == "launched"]
    assert told == [
        "cluster `c` was asked for on nimbus: task `train` runs on-demand on nimbus/east a100-8: done in "
        "10h 5m, before the "
        "deadline of 12h, for $322.67"
    ]


def test_a_deadline_that_is_not_weighed_is_a_warning(nimbus: tuple[IdleServer, Client]) -> None:
    _, client = nimbus
    task = msgspec.structs.replace(EIGHT, deadline_s=3600)
    warning = "the deadline is not weighed: `estimated_hours` is not known"
    assert warning in client.launch(task, cluster="c").warnings
    assert warning in client.jobs_launch([task]).warnings


def test_the_objective_chooses_at_launch() -> None:
    offers = (_machine("east", Capacity.ON_DEMAND, 32), _machine("west", Capacity.ON_DEMAND, 64, "H100"))
    wishes = tuple(Resources(accelerator=Accelerator(model=model, milli=8000)) for model in ("A100", "H100"))
    with IdleServer(_cloud(*offers)) as idle:
        client = Client(Location(socket=idle.socket))
        task = Task(name="train", run="x", resources=wishes)
        job = client.jobs_launch([task]).jobs[0]
        done = idle.do(idle.store.load(job.id))
        assert isinstance(done, Workload)
        started = done.created_ms
        for phase in (WorkloadPhase.STARTING, WorkloadPhase.RUNNING):
            moved = msgspec.structs.replace(done, phase=phase, started_ms=started)
            (done,) = idle.do(idle.store.commit([moved]))
        ended = msgspec.structs.replace(
            done, phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED, ended_ms=started + HOUR_MS
        )
        ran_on = _claim(
            "clm-1", job.id, choice=_choice("nimbus", "a100-8", Capacity.ON_DEMAND, 1), requested_ms=started
        )
        idle.do(idle.store.commit([ended, ran_on]))
        cheapest = client.launch(task, cluster="c")
        fastest = client.launch(msgspec.structs.replace(task, objective="time"), cluster="d")
        idle.order()
        assert _first_claim(idle, cheapest.cluster_id).choice.accelerator == "A100"
        assert _first_claim(idle, fastest.cluster_id).choice.accelerator == "H100"


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("objective", "fame", "objective is `fame`: cost, time or carbon"),
        ("progress_milli", 1001, "progress_milli is 1001: 0 to 1000"),
        ("deadline_s", 0, "a duration is below 0"),
        ("estimated_s", -5, "a duration is below 0"),
    ],
)
def test_what_a_client_may_not_send(client: Client, field: str, value: object, text: str) -> None:
    task = msgspec.structs.replace(EIGHT, **{field: value})
    assert text in refused(client.plan, task) and text in refused(client.launch, task)


# -- what does not exist, what cannot be ------------------------------------------------------------


def test_a_launch_says_in_one_line_what_clouds_could_do(client: Client) -> None:
    text = refused(client.launch, EIGHT)
    assert text == (
        "error: no offer fits task `train` (A100:8)\n"
        "  pool      –  accelerator  has no accelerator, asked for A100:8\n"
        "  5 clouds  –  not-in-use   fit, but are not in use on this server: `argosy check --all` says what "
        "each needs\n"
        "hint: set up a cloud: `argosy check --all` says how, or ask for less; `argosy launch --dryrun` and "
        "`argosy gpus` show what exists"
    )
    assert refused(client.jobs_launch, [EIGHT]) == text
    assert [each.code for each in client.plan(EIGHT).plan.rejected] == ["accelerator", "not-in-use"]


def test_a_launch_on_one_cloud_names_its_best_machine(client: Client) -> None:
    text = refused(client.launch, wish(accelerator=A100, infra=Infra(provider="lambda")))
    assert (
        "lambda  –  not-in-use  gpu_8x_a100 in asia-northeast-1 fits at $15.92/h, but lambda is not in use "
        "on this server: `argosy check lambda` says what it needs" in text
    )
    assert text.endswith("hint: set up lambda: `argosy check lambda` says how")


@pytest.mark.parametrize("prices", [False, True])
def test_an_accelerator_that_does_not_exist(client: Client, prices: bool) -> None:
    task = wish(accelerator=Accelerator(model="H1OO", milli=1000))
    expected = (
        "error: there is no accelerator `H1OO`\n"
        "hint: the nearest are `H100` (80 GB), `H100-NVL` (94 GB), `H100-SXM` (80 GB)"
    )
    assert refused(client.plan, task, prices=prices) == expected
    assert refused(client.launch, task) == expected
    assert refused(client.gpus, "H1OO") == expected


def test_a_place_that_does_not_exist(client: Client) -> None:
    expected = (
        "error: aws has no region `us-eest-1`\n"
        "hint: the nearest are `us-east-1` (Northern Virginia), `us-west-1` (Northern California), "
        "`eu-west-1` (Dublin)"
    )
    assert (
        refused(client.plan, wish(infra=Infra(provider="aws", region="us-eest-1")), prices=True) == expected
    )
    assert refused(client.gpus, "A100", infra="aws/us-eest-1") == expected
    assert refused(client.regions, "awz") == (
        "error: there is no infrastructure `awz`\nhint: did you mean `aws`?"
    )


def test_the_constraint_that_is_to_blame(client: Client) -> None:
    task = wish(accelerator=A100, memory=Bound(900 * GIB), infra=Infra(provider="gcp"))
    reply = client.plan(task, prices=True)
    assert reply.offers == () and reply.fitting == 0
    assert reply.text.startswith("nothing fits `A100:8, 900 GB+`")
    assert "without the memory of 900 GB+ it would run on gcp/" in reply.text
    text = refused(client.launch, task)
    assert "clouds  –  memory" in text and "without the memory of 900 GB+ it would run on gcp/" in text


def test_own_machines_alone_are_not_compared_with_clouds(client: Client) -> None:
    text = refused(client.launch, wish(accelerator=A100, infra=Infra(provider="pool")))
    assert "cloud" not in text


# -- listings ---------------------------------------------------------------------------------------


def test_gpus(client: Client) -> None:
    every = client.gpus()
    names = [model.accelerator for model in every.models]
    assert names == sorted(names) and {"A100", "H100", "MI300X"} <= set(names)
    h100 = next(model for model in every.models if model.accelerator == "H100")
    assert h100.on_demand is not None and h100.spot is not None and "aws" in h100.providers
    assert every.offers[0].provider == "pool" and every.gpus == ()
    eight = client.gpus("a100:8")
    assert {(row.accelerator, row.accelerators_milli) for row in eight.gpus} == {("A100", 8000)}
    assert eight.offers == ()  # the pool has none
    assert {row.provider for row in client.gpus("A100", infra="aws").gpus} == {"aws"}
    spot = client.gpus("A100", spot=True, cheapest=True).gpus
    assert all(row.spot for row in spot)
    assert len({(row.provider, row.accelerators_milli) for row in spot}) == len(spot)
    assert len(client.gpus(all=True).gpus) > 300
    assert refused(client.gpus, "A100:x") == (
        "error: `A100:x`: `x` is not a number\nhint: write for example `A100:8`"
    )


def test_regions(client: Client) -> None:
    korea = client.regions(area="kr").regions
    assert {"aws", "azure", "gcp", "oci"} <= {row.provider for row in korea}
    assert {row.country for row in korea} == {"KR"}
    assert {row.provider for row in client.regions("gcp").regions} == {"gcp"}


# -- the user's folder ------------------------------------------------------------------------------


def test_the_age_of_prices_is_said(client: Client) -> None:
    ages = {age.provider: age for age in client.catalog().providers}
    assert ages["aws"].refreshable and ages["aws"].offers > 20_000 and not ages["aws"].launchable
    aws = ages["aws"]
    assert aws.days is not None
    notes = client.plan(wish(accelerator=A100, infra=Infra(provider="aws")), prices=True).notes
    told = f"prices of aws are {aws.days} days old ({aws.newest}); `argosy catalog refresh aws` gets present ones"  # noqa: E501
    assert (told in notes) is aws.stale


def test_the_folder_is_read_again_when_it_changes(idle: IdleServer, client: Client) -> None:
    task = wish(cpus=Bound(2000))
    assert client.plan(task).plan.choices[0].price_micro_usd == 0
    folder = idle.home / "catalog"
    folder.mkdir()
    (folder / "terms.toml").write_text("[owned]\npool = 1.5\n")
    assert client.plan(task).plan.choices[0].price_micro_usd == 1_500_000
    (folder / "campus.csv").write_text(
        "provider,instance_type,accelerator,accelerator_count,accelerator_memory_gib,vcpus,memory_gib,region,price_usd_hour\n"
        "campus,dgx,B999,8,80,256,2048,seoul,9.5\n"
    )
    (row,) = client.gpus("B999").gpus
    assert (row.provider, row.on_demand and row.on_demand.micro_usd) == ("campus", 9_500_000)


def test_a_corrupt_catalog_of_the_user_falls_back_and_says_so(idle: IdleServer, client: Client) -> None:
    live = idle.home / "catalog" / "live"
    live.mkdir(parents=True)
    (live / "aws.prices").write_bytes(b"not a table")
    (idle.home / "catalog" / "terms.toml").write_text("[[discount\n")
    reply = client.plan(EIGHT, prices=True, limit=100)
    assert "aws" in {offer.provider for offer in reply.offers}
    warnings = client.catalog().warnings
    assert len(warnings) == 2 and set(warnings) <= set(reply.notes)
    assert any("aws.prices" in text for text in warnings) and any("terms.toml" in text for text in warnings)


def test_a_refresh_that_cannot_be(client: Client) -> None:
    assert refused(client.refresh_prices, "scp").startswith("error: there are no live prices of `scp`: ")


# -- budgets ----------------------------------------------------------------------------------------


def test_a_hard_stop_refuses_what_costs_money(idle: IdleServer, client: Client) -> None:
    folder = idle.home / "catalog"
    folder.mkdir()
    (folder / "terms.toml").write_text("[owned]\npool = 100.0\n")
    made = client.launch(Task(run="x"), cluster="c", user="ada")
    now_ms = idle.store.clock.now_ms()
    dear = _choice("pool", "", Capacity.OWNED, 100_000_000)
    paid = {"held_ms": now_ms, "requested_ms": now_ms, "cost_micro_usd": 102_400_000, "spent_ms": 1}
    idle.do(idle.store.commit([_claim("clm-1", made.cluster_id, choice=dear, **paid)]))
    client.set_budget(BudgetRequest(project="default", monthly_micro_usd=200_000_000, hard_stop=True))
    client.launch(Task(run="x"), cluster="d")
    (view,) = client.set_budget(
        BudgetRequest(project="default", monthly_micro_usd=100_000_000, hard_stop=True)
    ).budgets
    month, _, end_ms = month_of(now_ms)
    after = month_of(end_ms)[0]
    assert view.month == month and view.spent_micro_usd >= 102_400_000
    text = refused(client.launch, Task(run="x"), cluster="e")
    assert text.startswith("error: project `default` has spent $102.4")
    assert text.endswith(
        f" of its $100.00 for {month}: nothing that costs money is launched\n"
        f"hint: raise it with `argosy budget set default USD`, or wait until {after}-01 (UTC)"
    )
    with pytest.raises(ArgosyError) as error:
        client.jobs_launch([Task(run="x")])
    assert (error.value.code, error.value.exit_status) == ("over-budget", 6)
    client.stop("c")
    assert refused(client.start, "c").startswith("error: project `default` has spent $102.4")
    told = [event for event in client.events().events if event.code == "budget-spent"]
    assert {event.subject for event in told} == {"default", made.cluster_id}
    (folder / "terms.toml").unlink()  # free again
    client.launch(Task(run="x"), cluster="f")
    assert client.set_budget(BudgetRequest(project="default", monthly_micro_usd=0)).budgets == ()


def test_budgets_that_make_no_sense(client: Client) -> None:
    wrong = BudgetRequest(project="default", monthly_micro_usd=5, alert_pct=0)
    assert refused(client.set_budget, wrong).startswith("error: the alert is at 1 to 100 percent, not 0")


# -- what was spent ---------------------------------------------------------------------------------


def _choice(
    provider: str, instance_type: str, capacity: Capacity, micro_usd: int, region: str = ""
) -> Choice:
    shape = Shape(instance_type=instance_type, accelerator="A100", accelerators_milli=8000)
    offer = Offer(provider=provider, region=region, shape=shape, capacity=capacity, price_micro_usd=micro_usd)
    return Choice(
        offer=offer,
        resources=Resources(accelerator=A100),
        cpus_milli=0,
        memory_bytes=0,
        accelerator="A100",
        accelerators_milli=8000,
        price_micro_usd=micro_usd,
    )


def _claim(id: str, owner: str, **fields: Any) -> Claim:
    given: dict[str, Any] = {
        "choice": _choice("aws", "p4d.24xlarge", Capacity.SPOT, 2_000_000),
        "count": 1,
        "phase": ClaimPhase.HELD,
        "requested_ms": 0,
    }
    return Claim(id=id, workload_id=owner, **{**given, **fields})


def _owner(id: str, **fields: Any) -> Workload:
    spec = ClusterSpec(num_nodes=1, resources=(Resources(),))
    return Workload(
        id=id, kind="cluster", spec=spec, status=ClusterStatus(), created_ms=0, **{"name": id, **fields}
    )


def test_spans_lie_before_each_other() -> None:
    held = _claim("a", "x", held_ms=10 * HOUR_MS, spent_ms=2 * HOUR_MS, cost_micro_usd=5_000_000)
    assert spans_of(held, 11 * HOUR_MS) == [
        Span(10 * HOUR_MS, 11 * HOUR_MS, 2_000_000),
        Span(8 * HOUR_MS, 10 * HOUR_MS, 5_000_000),
    ]
    gone = _claim("a", "x", phase=ClaimPhase.GONE, gone_ms=9 * HOUR_MS, spent_ms=HOUR_MS, cost_micro_usd=7)
    assert spans_of(gone, 99 * HOUR_MS) == [Span(8 * HOUR_MS, 9 * HOUR_MS, 7)]
    assert spans_of(_claim("a", "x"), 5) == []


def test_costs_by_everything() -> None:
    owners = {
        "c1": _owner("c1", name="dev", user="ada", project="vision"),
        "c2": _owner("c2", name="big", user="bob", project="vision"),
    }
    claims = [
        _claim("a", "c1", held_ms=DAY_MS - HOUR_MS),
        _claim("b", "c2", held_ms=DAY_MS, choice=_choice("pool", "", Capacity.OWNED, 500_000)),
        _claim("z", "nobody", held_ms=1),
    ]
    now_ms = DAY_MS + HOUR_MS
    rates = {"a": Rates(on_demand=6_000_000), "b": Rates(elsewhere=400_000)}

    def told(by: str, since_ms: int = 0) -> list[tuple[Any, ...]]:
        groups = grouped(by, claims, owners, lambda one: rates[one.id], since_ms=since_ms, now_ms=now_ms)
        return [
            (g.key, g.held_s, g.cost_micro_usd, g.saved_on_demand_micro_usd, g.saved_elsewhere_micro_usd)
            for g in groups
        ]

    assert told("user") == [("ada", 7200, 4_000_000, 8_000_000, None), ("bob", 3600, 500_000, None, -100_000)]
    assert told("project") == [("vision", 10_800, 4_500_000, 8_000_000, -100_000)]
    assert [group[0] for group in told("task")] == ["dev", "big"]
    assert [group[0] for group in told("infra")] == ["aws", "pool"]
    assert told("day") == [
        ("1970-01-01", 3600, 2_000_000, 4_000_000, None),
        ("1970-01-02", 7200, 2_500_000, 4_000_000, -100_000),
    ]
    assert [group[0] for group in told("day", since_ms=DAY_MS)] == ["1970-01-02"]
    spending = Spending({"vision": 1, "speech": 2}, [("vision", claim) for claim in claims[:2]])
    assert add_spending(spending, DAY_MS, now_ms) == {"vision": 2_500_001, "speech": 2}
    with pytest.raises(ArgosyError, match="costs cannot be grouped by `mood`"):
        told("mood")


def test_savings_against_on_demand_and_another_cloud(idle: IdleServer, client: Client) -> None:
    made = client.launch(Task(run="x"), cluster="c", user="ada")
    began_ms = idle.store.clock.now_ms() - HOUR_MS
    spot = _choice("aws", "p4d.24xlarge", Capacity.SPOT, 5_000_000, "us-east-1")
    held = _claim("clm-1", made.cluster_id, choice=spot, held_ms=began_ms, requested_ms=began_ms)
    idle.do(idle.store.commit([held]))
    reply = client.costs(by="user", against="lambda")
    (group,) = reply.groups
    assert group.key == "ada" and group.cost_micro_usd >= 5_000_000
    assert group.saved_on_demand_micro_usd is not None and group.saved_on_demand_micro_usd > 10_000_000
    assert group.saved_elsewhere_micro_usd is not None and group.saved_elsewhere_micro_usd > 5_000_000
    assert reply.saved_on_demand_micro_usd == pytest.approx(group.saved_on_demand_micro_usd, abs=50_000)
    assert refused(client.costs, against="mars").startswith("error: there are no prices of `mars`")
