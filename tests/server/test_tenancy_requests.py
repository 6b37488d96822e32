"""Queues, pools, reasons, presets and projects over the API: a real server whose controllers say what the
test wants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from argosy.api.costs import BudgetRequest
from argosy.api.location import Location
from argosy.api.pool import PoolList, ShareView
from argosy.api.quota import QueueRequest, TenancyReply
from argosy.client.client import Client
from argosy.model.errors import ArgosyError, render_error
from argosy.model.facts import Device
from argosy.model.offer import Capacity, DeviceShare, Placement
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.resources import Accelerator, Resources
from argosy.model.rows import Workload
from argosy.model.scheduling import Scheduling
from argosy.model.task import Task
from argosy.model.tenancy import Group, Preset, Queue, QueueUsage, SharePolicy, Tenancy
from argosy.scheduler.ask import Machine, Waiting
from argosy.scheduler.picture import Held, PoolPicture, Queued
from argosy.server.tokens import Tokens
from argosy.testing.builders import a_gpu_shape, an_attempt, an_offer, changed
from argosy.testing.idle_server import IdleServer, StaticProvider, a_pool

GIB = 1 << 30


@pytest.fixture
def server() -> Iterator[IdleServer]:
    with IdleServer(a_pool(shape=a_gpu_shape())) as running:
        yield running


@pytest.fixture
def client(server: IdleServer) -> Client:
    return Client(Location(socket=server.socket))


def project_client(server: IdleServer, project: str) -> Client:
    return Client(Location(socket=server.socket, project=project))


def refused(call: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(ArgosyError) as caught:
        call(*arguments, **keywords)
    return render_error(caught.value)


def gpus(text: str, **fields: Any) -> Task:
    model, _, count = text.partition(":")
    wish = Resources(accelerator=Accelerator(model=model, milli=round(float(count or 1) * 1000)))
    return msgspec.structs.replace(Task(run="x", resources=(wish,)), **fields)


def rows(server: IdleServer) -> Any:
    return server.do(server.store.snapshot())


def only(server: IdleServer) -> Workload:
    (found,) = rows(server).workloads.values()
    assert isinstance(found, Workload)
    return found


# -- the tree ---------------------------------------------------------------------------------------


def test_a_queue_is_made_changed_and_removed(server: IdleServer, client: Client) -> None:
    assert client.tenancy() == TenancyReply(tenancy=Tenancy())
    made = client.set_queue(
        QueueRequest(
            path="/acme/vision/",
            deserved={"gpus": 16_000},
            limit={"gpus": 32_000, "jobs": 20},
            weight_milli=2000,
            max_pending=9,
        )
    )
    assert made.tenancy.rev == 1
    assert [view.path for view in made.queues] == ["acme", "acme/vision"]
    changed = client.set_queue(
        QueueRequest(path="acme/vision", limit={"gpus": None}, lend_limit={"gpus": 4000}, max_pending=-1)
    )
    assert changed.tenancy.queues == (
        Queue(
            path="acme/vision",
            deserved={"gpus": 16_000},
            limit={"jobs": 20},
            lend_limit={"gpus": 4000},
            weight_milli=2000,
        ),
    )
    assert "tenancy" in server.controllers.woken
    events = [event.text for event in client.events("tenancy").events]
    assert events == ["queue `acme/vision` was changed"] * 2
    assert client.set_queue(QueueRequest(path="acme/vision", remove=True)).queues == ()


def test_trees_that_contradict_themselves_are_refused_and_not_stored(client: Client) -> None:
    client.set_queue(QueueRequest(path="acme", guaranteed={"gpus": 8000}, limit={"gpus": 16_000}))
    before = client.tenancy()
    told = refused(client.set_queue, QueueRequest(path="acme/vision", guaranteed={"gpus": 12_000}))
    assert told == (
        "error: queue acme: its children are guaranteed 12 GPUs, it is itself guaranteed 8\n"
        "hint: raise guaranteed of acme, or lower guaranteed of its children"
    )
    told = refused(
        client.set_queue, QueueRequest(path="acme/speech", guaranteed={"gpus": 4000}, limit={"gpus": 2000})
    )
    assert told == (
        "error: queue acme/speech: guaranteed 4 GPUs is more than limit 2 GPUs\n"
        "hint: raise limit, or lower guaranteed"
    )
    told = refused(client.set_queue, QueueRequest(path="a//b", limit={"gpus": 1}))
    assert told.startswith("error: `a//b` is no path of a queue\nhint: names of letters")
    told = refused(client.set_queue, QueueRequest(path="acm", remove=True))
    assert told == "error: there is no queue `acm`\nhint: did you mean `acme`?"
    client.set_queue(QueueRequest(path="acme/vision"))
    told = refused(client.set_queue, QueueRequest(path="acme", remove=True))
    assert told == ("error: queue `acme` has 1 queue below it: acme/vision\nhint: remove those first")
    client.set_queue(QueueRequest(path="acme/vision", remove=True))
    assert client.tenancy().tenancy.queues == before.tenancy.queues


def test_all_of_it_is_set_with_its_revision(client: Client) -> None:
    tree = Tenancy(
        queues=(Queue(path="acme", limit={"gpus": 8000}),),
        groups=(Group(name="training", nodes=("gpu-*",)),),
        policy=SharePolicy(backfill="none"),
    )
    reply = client.set_tenancy(tree, rev=0)
    assert reply.tenancy == msgspec.structs.replace(tree, rev=1)
    assert reply.text.startswith("queues:\n  acme:\n    limit:\n      gpus: 8\n")
    assert client.set_tenancy(tree).tenancy.rev == 1  # nothing to write
    told = refused(client.set_tenancy, Tenancy(), rev=0)
    assert told == (
        "error: somebody changed the queues meanwhile (revision 1, yours is 0)\n"
        "hint: `argosy quota export` shows them as they are now; apply your change to that"
    )
    told = refused(client.set_tenancy, Tenancy(policy=SharePolicy(backfill="esy")))
    assert told == "error: policy: there is no backfill `esy`\nhint: did you mean `easy`?"


def test_writing_needs_an_administrator() -> None:
    with IdleServer(listen="127.0.0.1:0") as other:
        other.do(Tokens(other.store).add("s3cret", name="a", scope="use", now_ms=1))
        host, _, port = other.address.rpartition("/")[2].rpartition(":")
        far = Client(Location(None, host=host, port=int(port), token="s3cret"))
        assert far.tenancy().tenancy == Tenancy()
        told = refused(far.set_queue, QueueRequest(path="acme"))
        assert told.startswith("error: the token `a` has no role with `queues.write` over everything\n")
        assert refused(far.set_tenancy, Tenancy()).startswith("error: the token `a` has no role with")
        urgent = Task(run="x", resources=(Resources(priority_class="system"),))
        assert refused(far.jobs_launch, [urgent]) == (
            "error: `priority_class: system` is for administrators\nhint: the most urgent of yours is "
            "`service`"
        )


# -- usage and words --------------------------------------------------------------------------------


def shared(server: IdleServer, client: Client) -> None:
    """Two teams on 16 GPUs: vision borrows what speech does not use."""
    client.set_tenancy(
        Tenancy(
            queues=(
                Queue(path="acme", limit={"gpus": 16_000}),
                Queue(path="acme/vision", deserved={"gpus": 8000}, limit={"gpus": 12_000}),
                Queue(path="acme/speech", guaranteed={"gpus": 2000}, deserved={"gpus": 8000}),
            )
        )
    )
    devices = tuple(Device(index=index, model="A100", memory_bytes=80 * GIB) for index in range(8))
    machines = tuple(
        Machine(
            id=f"m{n}", index=n, name=f"gpu-{n}", cpus_milli=64_000, memory_bytes=512 * GIB, devices=devices
        )
        for n in (0, 1)
    )
    server.controllers.pictures = [PoolPicture(id="pool", name="pool", machines=machines)]
    server.controllers.usage = [
        QueueUsage(path="acme", used={"gpus": 13_000, "jobs": 3}, running=3),
        QueueUsage(path="acme/speech", used={"gpus": 3000, "jobs": 1}, running=1),
        QueueUsage(path="acme/speech/bob", used={"gpus": 3000, "jobs": 1}, running=1),
        QueueUsage(path="acme/vision", used={"gpus": 10_000, "jobs": 2}, running=2, share_milli=250),
        QueueUsage(path="acme/vision/ann", used={"gpus": 10_000, "jobs": 2}, running=2),
    ]


def test_what_queues_borrow_and_lend(server: IdleServer, client: Client) -> None:
    shared(server, client)
    views = {view.path: view for view in client.tenancy().queues}
    assert list(views) == ["acme", "acme/speech", "acme/speech/bob", "acme/vision", "acme/vision/ann"]
    assert views["acme/vision"].borrows == {"gpus": 2000} and views["acme/vision"].share_milli == 250
    assert views["acme/speech"].lends == {"gpus": 2000}  # of five that are idle, two are borrowed
    assert (views["acme/vision"].named, views["acme/vision/ann"].named) == (True, False)


def test_what_is_idle_is_more_than_what_may_be_lent(server: IdleServer, client: Client) -> None:
    queue = Queue(path="acme", deserved={"gpus": 16_000}, lend_limit={"gpus": 4000})
    client.set_tenancy(
        Tenancy(queues=(queue, Queue(path="own", deserved={"gpus": 8000}, lend_limit={"gpus": 0})))
    )
    assert client.explain_queue("acme").lines[2:] == (
        "16 GPUs that it deserves are idle, 4 of them may be lent; nobody borrows now",
    )
    assert client.explain_queue("own").lines[2:] == (
        "8 GPUs that it deserves are idle, none of them may be lent",
    )
    server.controllers.usage = [QueueUsage(path="own", used={"gpus": 10_000}, running=1)]
    assert client.explain_queue("acme").lines[2] == (
        "16 GPUs that it deserves are idle, 4 of them may be lent; `own` borrows"
    )


def test_a_queue_in_words(server: IdleServer, client: Client) -> None:
    shared(server, client)
    assert client.explain_queue("acme/vision").lines == (
        "`acme/vision` uses 10 GPUs (8 deserved, 12 at most)",
        "2 jobs run, none waits",
        "it borrows 2 GPUs beyond what it deserves; `acme/speech` could want it back",
        "jobs of `acme/speech` may end its preemptible jobs to get up to 2 GPUs back",
        "above it, `acme` uses 13 GPUs of 16 at most",
    )
    assert client.explain_queue("acme/speech").lines[2:4] == (
        "5 GPUs that it deserves are idle and may be lent; `acme/vision` borrows",
        "it may take back up to 5 GPUs from preemptible jobs of `acme/vision`",
    )
    assert refused(client.explain_queue, "acme/visoin") == (
        "error: there is no queue `acme/visoin`\nhint: did you mean `acme/vision`?"
    )


@pytest.mark.parametrize(
    ("queue", "request_", "told"),
    [
        ("acme/vision", "A100:16", "a request for 16 A100 could never start: `acme/vision` may have 12 "
                                   "GPUs at most"),
        ("acme/vision", "A100:4", "a request for 4 A100 would wait: queue acme/vision: 10 + 4 > 12 GPUs, "
                                  "over by 2"),
        ("acme/vision", "A100", "a request for 1 A100 would borrow 1 GPU: it starts while others lend, and "
                                "a preemptible job may be ended when they want it back"),
        ("acme/speech", "A100:2", "a request for 2 A100 is within what it deserves: it starts as soon as "
                                  "machines are free"),
        ("acme", "V100:0.5", "a request for 0.5 V100 could never start: all owned machines together have "
                             "no V100"),
    ],
)  # fmt: skip
def test_what_a_request_would_meet(
    server: IdleServer, client: Client, queue: str, request_: str, told: str
) -> None:
    shared(server, client)
    assert client.explain_queue(queue, request=request_).lines[-1] == told


def test_a_request_that_cannot_be_read(server: IdleServer, client: Client) -> None:
    shared(server, client)
    for words, told in (
        ("A100:many", "request: `many` is no number of accelerators\nhint: write for example `8` or `0.5`"),
        (
            "potatoes=3",
            "request: `potatoes` is not counted\nhint: counted are `cpus`, `memory`, `gpus`, `jobs` and "
            "`gpus/A100`",
        ),
        ("gpus=lots", "request: `lots` is no number of GPUs\nhint: write for example `gpus=8`"),
    ):
        assert refused(client.explain_queue, "acme", request=words) == told


def test_a_request_may_name_amounts(server: IdleServer, client: Client) -> None:
    shared(server, client)
    assert client.explain_queue("acme/vision", request="gpus=4,cpus=1").lines[-1] == (
        "a request for 4 GPUs and 1 CPU would wait: queue acme/vision: 10 + 4 > 12 GPUs, over by 2"
    )
    told = client.explain_queue("acme/speech", request="A100:1,cpus=8,memory=64GB", nodes=2).lines[-1]
    assert told.startswith("a request for 2 A100, 16 CPUs and 128 GB of memory ")
    told = client.explain_queue("acme/speech", request="gpus=800").lines[-1]
    assert told == "a request for 800 GPUs could never start: `acme` may have 16 GPUs at most"


# -- seats ------------------------------------------------------------------------------------------


def test_jobs_count_in_the_leaf_of_project_and_user(server: IdleServer, client: Client) -> None:
    client.set_queue(QueueRequest(path="acme/vision", limit={"gpus": 8000}))
    client.jobs_launch([Task(run="x")], user="ann", project="vision")
    job = only(server)
    assert (job.project, job.queue, job.user) == ("vision", "acme/vision/ann", "ann")
    (view,) = client.queue().jobs
    assert (view.project, view.queue) == ("vision", "acme/vision/ann")


def test_a_named_queue_and_one_that_is_not_there(server: IdleServer, client: Client) -> None:
    client.set_queue(QueueRequest(path="acme/vision"))
    named = Task(run="x", scheduling=Scheduling(queue="acme/vision"))
    client.jobs_launch([named], user="ann")
    assert only(server).queue == "acme/vision/ann"
    wrong = Task(run="x", scheduling=Scheduling(queue="acme/visoin"))
    told = refused(client.jobs_launch, [wrong], user="ann")
    assert told.startswith("error: there is no queue acme/visoin\nhint: did you mean `acme/vision`?")


def test_only_so_many_may_wait(server: IdleServer, client: Client) -> None:
    client.set_queue(QueueRequest(path="default", max_pending=3))
    client.jobs_launch([Task(run="x"), Task(run="y")], user="ann")
    with pytest.raises(ArgosyError) as caught:
        client.jobs_launch([Task(run="x"), Task(run="y")], user="bob")
    assert (caught.value.code, caught.value.http_status, caught.value.exit_status) == ("over-quota", 403, 6)
    told = render_error(caught.value)
    assert told == (
        "error: queue `default` may have 3 waiting: 2 wait + 2 > 3, over by 1\n"
        "hint: submit again when some have started: `argosy quota get default`"
    )
    client.jobs_launch([Task(run="x")], user="bob")
    assert len(client.queue().jobs) == 3


RAISE_IT = "have the limit raised: `argosy quota set default --limit ...`"


def test_more_than_the_limit_waits_or_is_refused(server: IdleServer, client: Client) -> None:
    client.set_queue(QueueRequest(path="default", limit={"gpus": 4000}))
    reply = client.jobs_launch([gpus("A100:8")], user="ann")
    what = "queue default: 0 + 8 > 4 GPUs, over by 4, even when nothing else runs in it"
    assert reply.warnings == (f"{what}; it waits until the limit is raised",)
    client.cancel(None, all=True)
    client.set_queue(QueueRequest(path="default", refuse_over_limit=True))
    assert refused(client.jobs_launch, [gpus("A100:8")], user="ann") == (
        f"error: queue default: 0 + 8 > 4 GPUs, over by 4\nhint: ask for less, or {RAISE_IT}"
    )
    assert client.jobs_launch([gpus("A100:3")], user="ann").warnings == ()


@pytest.mark.parametrize("what", ["jobs", "clusters"])
def test_requests_that_come_at_once_do_not_pass_a_limit_together(
    server: IdleServer, client: Client, what: str
) -> None:
    client.set_queue(QueueRequest(path="default", limit={"gpus": 5000}, refuse_over_limit=True))

    def ask(number: int) -> str:
        with Client(Location(server.socket)) as mine:
            try:
                if what == "jobs":
                    mine.jobs_launch([gpus("A100:1")], user="ann")
                else:
                    mine.launch(gpus("A100:1"), cluster=f"c{number}", user="ann")
            except ArgosyError as error:
                return error.code
            return "taken"

    with ThreadPoolExecutor(16) as threads:
        told = Counter(threads.map(ask, range(16)))
    assert told == {"taken": 5, "over-quota": 11}


def test_what_a_queue_has_accepted_counts_where_it_refuses(server: IdleServer, client: Client) -> None:
    """Running or not, managed jobs and clusters, several of one request together; jobs of a cluster are
    another account."""
    client.set_queue(QueueRequest(path="default", limit={"gpus": 4000}, refuse_over_limit=True))
    client.jobs_launch([gpus("A100:3")], user="ann")
    hint = f"hint: submit again when something has ended (`argosy queue --tree`), or {RAISE_IT}"
    assert refused(client.jobs_launch, [gpus("A100:2")], user="bob") == (
        f"error: queue default: 3 + 2 > 4 GPUs, over by 1; 3 of the 3 wait\n{hint}"
    )
    assert refused(client.jobs_launch, [gpus("A100:0.5")] * 3, user="bob") == (
        f"error: queue default: 3 + 1.5 > 4 GPUs, over by 0.5; 3 of the 3 wait\n{hint}"
    )
    client.launch(gpus("A100"), cluster="dev", user="bob")
    assert refused(client.launch, gpus("A100"), cluster="more", user="bob").startswith(
        "error: queue default: 4 + 1 > 4 GPUs, over by 1; "
    )
    client.exec("dev", [gpus("A100")], user="bob")
    client.jobs_launch([Task(run="x")], user="bob")


def test_what_no_node_could_hold_is_refused_at_once(client: Client) -> None:
    told = refused(client.jobs_launch, [gpus("A100:64")], user="ann")
    lines = told.splitlines()
    assert lines[0] == "error: no offer fits the task (A100:64)"
    assert lines[1].split() == ["pool", "–", "accelerator", "has", "8", "A100,", "asked", "for", "64"]
    assert client.queue().jobs == ()


def test_presets_are_put_in_and_give_way(server: IdleServer, client: Client) -> None:
    small = Resources(accelerator=Accelerator(model="A100", milli=250), priority=3)
    client.set_tenancy(Tenancy(presets=(Preset(name="small", resources=small),)))
    client.jobs_launch([Task(run="x", resources=(Resources(preset="small", priority=5),))])
    spec: Any = only(server).spec
    assert spec.task.resources == (msgspec.structs.replace(small, priority=5),)
    wrong = Task(run="x", resources=(Resources(preset="smal"),))
    told = "error: there is no preset `smal`\nhint: did you mean `small`?"
    assert refused(client.jobs_launch, [wrong]) == told
    assert refused(client.launch, wrong) == told
    assert refused(client.plan, wrong) == told


# -- projects and names -----------------------------------------------------------------------------


def test_a_name_means_the_cluster_of_the_project_first(server: IdleServer, client: Client) -> None:
    vision, speech = project_client(server, "vision"), project_client(server, "speech")
    first = vision.launch(Task(), cluster="dev", user="ann")
    assert client.cluster("dev").project == "vision"  # the only one there is
    second = speech.launch(Task(), cluster="dev", user="bob")
    assert second.created and second.cluster_id != first.cluster_id
    assert vision.cluster("dev").id == first.cluster_id
    assert speech.cluster("dev").id == client.cluster("speech/dev").id == second.cluster_id
    told = "error: there are clusters `dev` in the projects speech, vision\nhint: write `speech/dev`, or set ARGOSY_PROJECT"  # noqa: E501
    for call in (client.cluster, client.down, client.stop, client.start, client.queue):
        assert refused(call, "dev") == told
    assert refused(client.exec, "dev", [Task(run="x")]) == told
    own = client.launch(Task(), cluster="dev", user="cho")
    assert client.cluster("dev").id == own.cluster_id
    assert client.cluster(first.cluster_id).project == "vision"
    client.down("vision/dev")
    assert rows(server).workloads[first.cluster_id].desired.value == "end"
    assert rows(server).workloads[second.cluster_id].desired.value == "run"


def test_jobs_count_in_the_project_that_is_named_else_in_the_clusters(
    server: IdleServer, client: Client
) -> None:
    made = client.launch(Task(), cluster="dev", user="ann", project="vision")
    client.exec("dev", [Task(run="x")], user="ann")
    client.exec("vision/dev", [Task(run="x")], user="bob", project="vision")
    jobs = rows(server).jobs_of(made.cluster_id)
    assert [(job.project, job.queue) for job in jobs] == [("vision", "vision/ann"), ("vision", "vision/bob")]


@pytest.mark.parametrize("name", ["UPPER", "-x", "a b"])
def test_projects_have_names_like_clusters(client: Client, name: str) -> None:
    assert "cannot name a project" in refused(client.launch, Task(run="x"), project=name)


def test_budgets_are_by_project_also_when_something_starts_again(server: IdleServer, client: Client) -> None:
    """Two projects have spent six dollars each; one of them may spend five."""
    pool = server.providers.by_name["pool"]
    assert isinstance(pool, StaticProvider)
    pool.offers = [an_offer(capacity=Capacity.ON_DEMAND, price_micro_usd=2_000_000)]
    rich, poor = project_client(server, "rich"), project_client(server, "poor")
    for each, name in ((rich, "one"), (poor, "two")):
        each.launch(Task(), cluster=name, user="ann")

    server.order()

    async def rest_after_spending() -> None:
        snapshot = await server.store.snapshot()
        puts: list[Any] = []
        for cluster in snapshot.clusters():
            (claim,) = snapshot.claims_of(cluster.id)
            spent = {
                "spent_ms": 3 * 3_600_000,
                "cost_micro_usd": 6_000_000,
                "requested_ms": claim.requested_ms,
            }
            puts += [
                msgspec.structs.replace(cluster, desired=Desired.STOP),
                msgspec.structs.replace(claim, held_ms=server.store.clock.now_ms(), **spent),
            ]
        await server.store.commit(puts)

    server.do(rest_after_spending())
    for project, usd in (("poor", 5), ("rich", 500)):
        client.set_budget(BudgetRequest(project=project, monthly_micro_usd=usd * 1_000_000, hard_stop=True))
    by_project = {group.key: group.cost_micro_usd for group in client.costs(by="project").groups}
    assert set(by_project) == {"poor", "rich"}
    assert all(6_000_000 <= cost < 6_100_000 for cost in by_project.values())
    told = "error: project `poor` has spent $6.00 of its $5.00 for "
    assert refused(poor.start, "two").startswith(told)
    assert refused(poor.launch, Task(run="x"), cluster="two").startswith(told)
    assert refused(poor.launch, Task(run="x"), cluster="three").startswith(told)
    assert refused(poor.jobs_launch, [Task(run="x")]).startswith(told)
    assert refused(client.jobs_launch, [Task(run="x")], project="poor").startswith(told)
    assert rich.start("one").names == ("one",)
    assert rich.launch(Task(run="x"), cluster="three").created
    assert client.jobs_launch([Task(run="x")]).jobs


# -- pools and reasons ------------------------------------------------------------------------------


def a_picture(job_id: str, other_id: str) -> PoolPicture:
    devices = tuple(Device(index=index, model="A100", memory_bytes=80 * GIB) for index in range(4))
    machines = tuple(
        Machine(id=f"m{n}", index=n, name=f"gpu-{n}", cpus_milli=8000, devices=devices, open=n < 2)
        for n in range(3)
    )

    def place(node: str, *shares: DeviceShare) -> Placement:
        return Placement(rank=0, node_id=node, cpus_milli=1000, memory_bytes=GIB, devices=shares)

    return PoolPicture(
        id="pool",
        name="pool",
        machines=machines,
        held=(
            Held(
                id=other_id,
                number=7,
                user="bob",
                queue="default/bob",
                placements=(
                    place("m0", DeviceShare(index=0, milli=1000), DeviceShare(index=1, milli=500)),
                    place("m1", DeviceShare(index=3, milli=1000)),
                ),
            ),
            Held(id="job-x", placements=(place("m0", DeviceShare(index=1, milli=250, mechanism="mps")),)),
        ),
        waiting=(
            Queued(
                id=job_id,
                number=1,
                user="ann",
                position=1,
                gpu_milli=4000,
                models=("A100",),
                waiting=Waiting(
                    ask_id=job_id, code="capacity", text="waits for 4 A100", starts_at_ms=4_000_000_000_000
                ),
            ),
        ),
    )


def test_pools(server: IdleServer, client: Client) -> None:
    assert client.pools() == PoolList(pools=())
    server.controllers.pictures = [a_picture("job-1", "job-2")]
    client.jobs_launch([Task(run="x")])  # a picture is kept until something changes
    (pool,) = client.pools().pools
    assert [machine.cpus_used_milli for machine in pool.machines] == [2000, 1000, 0]
    assert pool.machines[0].devices[1].shares == (
        ShareView(holder=0, milli=500),
        ShareView(holder=1, milli=250, mechanism="mps"),
    )
    assert pool.machines[0].holders == (0, 1) and pool.machines[2].open is False
    assert [(gang.gpus, gang.num_nodes) for gang in pool.gangs] == [(1, 2), (2, 2)]
    assert pool.waiting[0].text == "waits for 4 A100"


def test_place_and_start_are_in_lists(server: IdleServer, client: Client) -> None:
    (ref,) = client.jobs_launch([Task(run="x")]).jobs
    server.controllers.pictures = [a_picture(ref.id, "job-2")]
    client.jobs_launch([Task(run="y")])
    views = {view.id: view for view in client.queue().jobs}
    assert (views[ref.id].position, views[ref.id].starts_at_ms) == (1, 4_000_000_000_000)
    assert client.job(ref.id).position == 1
    (in_status,) = [view for view in client.status().jobs if view.id == ref.id]
    assert in_status.position == 1


def test_why_a_job_waits(server: IdleServer, client: Client) -> None:
    (ref,) = client.jobs_launch([Task(run="x", name="train")], user="ann").jobs
    assert client.explain(ref.id).lines == ("it has just come: nothing has been decided yet",)
    server.controllers.pictures = [a_picture(ref.id, "job-2")]
    now_ms = server.store.clock.now_ms()
    server.controllers.whys[ref.id] = Waiting(
        ask_id=ref.id, code="capacity", text="waits for 4 A100", starts_at_ms=now_ms + 3_660_500
    )
    client.jobs_launch([Task(run="y")])
    reply = client.explain(ref.id)
    assert (reply.title, reply.status, reply.code, reply.position) == (
        "managed job 1 (train)",
        "queued",
        "capacity",
        1,
    )
    assert reply.lines[:2] == ("waits for 4 A100", "nothing else waits for `pool`")
    assert reply.lines[2].startswith("it probably starts in 1h")
    assert reply.lines[3].startswith("asking for less")
    assert refused(client.explain, "job-none").startswith("error: there is no job or cluster `job-none`")


def test_why_a_job_is_where_it_is_and_how_it_ended(server: IdleServer, client: Client) -> None:
    task = Task(run="x", scheduling=Scheduling(preemptible=True))
    (ref,) = client.jobs_launch([task], user="ann").jobs
    now_ms = server.store.clock.now_ms()

    async def start() -> None:
        job = (await server.store.snapshot()).workloads[ref.id]
        attempt = an_attempt(
            workload_id=ref.id,
            placements=(
                Placement(
                    rank=0,
                    node_id="nod-1",
                    devices=(
                        DeviceShare(index=0, milli=1000),
                        DeviceShare(index=2, milli=250, mechanism="mps"),
                    ),
                ),
            ),
            why="it was the first that fitted",
            placed_ms=now_ms - 7_205_000,
        )
        running = changed(job, phase=WorkloadPhase.STARTING, evictions=2)
        await server.store.commit([running, attempt])

    server.do(start())
    reply = client.explain(ref.id)
    assert reply.lines == (
        "attempt 1 is on nod-1, GPUs 0 and 0.25 of 2 by mps",
        "it was the first that fitted",
        "it has had its place for 2h",
        "it may be ended to make room for others; then it waits again and begins again from the start",
        "it made room for others 2 times",
    )
    assert reply.attempts[0].why == "it was the first that fitted"

    async def end() -> None:
        job = (await server.store.snapshot()).workloads[ref.id]
        over = msgspec.structs.replace(job, phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED)
        await server.store.commit([over])

    server.do(end())
    assert client.explain(ref.id).lines == ("it ended: succeeded", "it made room for others 2 times")
