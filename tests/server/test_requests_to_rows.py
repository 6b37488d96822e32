from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from raw_requests import Raw

from argosy.controllers.policies import new_claim
from argosy.controllers.view import abilities_of
from argosy.infra import border
from argosy.infra.provider import Want
from argosy.model.kinds.cluster import ClusterSpec, cluster_state
from argosy.model.offer import Capacity, Offer
from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.rows import Claim, Row, Workload
from argosy.model.units import GIB
from argosy.planning import plan
from argosy.scheduler.ask import Waiting
from argosy.store.snapshot import Snapshot
from argosy.testing.builders import a_node, a_shape, an_attempt, an_id, an_offer, changed
from argosy.testing.idle_server import IdleServer, StaticProvider, a_pool

TASK = {"run": "echo hi"}
TOO_MUCH = {"run": "x", "resources": [{"accelerator": {"model": "A100", "milli": 64000}}]}
ONE_GPU = {"run": "x", "resources": [{"accelerator": {"model": "A100", "milli": 1000}}]}


def gpu_pool() -> StaticProvider:
    return a_pool(
        shape=a_shape(accelerator="A100", accelerators_milli=2000, accelerator_memory_bytes=80 * GIB)
    )


@pytest.fixture
def gpus() -> Iterator[IdleServer]:
    with IdleServer(gpu_pool()) as running:
        yield running


def rows(server: IdleServer) -> Snapshot:
    return server.do(server.store.snapshot())


def put(server: IdleServer, *changed: Row) -> None:
    server.do(server.store.commit(changed))


def cluster(server: IdleServer, name: str) -> Workload:
    found = rows(server).cluster_named(name)
    assert found is not None
    return found


def replace(row: Any, **changes: object) -> Any:
    return msgspec.structs.replace(row, **changes)


def give_machines(server: IdleServer, name: str) -> None:
    """What the pool of owned machines would do: the cluster gets a claim."""
    workload = cluster(server, name)
    assert isinstance(workload.spec, ClusterSpec)
    offers = server.do(server.providers.get("pool").quote(Want()))
    made = plan(
        workload.spec.resources,
        workload.spec.num_nodes,
        offers,
        abilities=abilities_of(server.providers),
        usage={},
    )
    claim = new_claim(an_id("clm"), workload.id, made.choices, workload.spec.num_nodes, 1)
    put(server, replace(workload, phase=WorkloadPhase.STARTING), claim)


def run_cluster(server: IdleServer, name: str, **node: Any) -> tuple[Workload, Claim]:
    """What the controllers would do: the claim is held, one node is ready."""
    give_machines(server, name)
    workload = cluster(server, name)
    claim = rows(server).claims_of(workload.id)[0]
    put(
        server,
        replace(workload, phase=WorkloadPhase.RUNNING),
        replace(claim, phase=ClaimPhase.HELD, held_ms=server.store.clock.now_ms() - 3_600_000),
        a_node(claim_id=claim.id, workload_id=workload.id, phase=NodePhase.READY, ready_ms=1, **node),
    )
    return cluster(server, name), rows(server).claims_of(workload.id)[0]


# -- launch -----------------------------------------------------------------------------------------


def test_launch_makes_rows_and_wakes(server: IdleServer, raw: Raw) -> None:
    answer = raw.post("/launch", {"task": {**TASK, "name": "t"}, "cluster": "c", "user": "me"})
    assert answer.status == 200, answer.body
    reply = answer.json
    assert (reply["cluster"], reply["created"], reply["job"]["number"]) == ("c", True, 1)
    assert reply["plan"]["choices"][0]["offer"]["provider"] == "pool"
    snapshot = rows(server)
    made = snapshot.workloads[reply["cluster_id"]]
    # owned machines are given by their pool, in its order
    assert (made.phase, made.user, made.kind) == (WorkloadPhase.QUEUED, "me", "cluster")
    assert snapshot.claims_of(made.id) == ()
    (job,) = snapshot.jobs_of(made.id)
    assert (job.id, job.name, job.phase) == (reply["job"]["id"], "t", WorkloadPhase.QUEUED)
    assert {made.id, job.id} <= set(server.controllers.woken)
    (told,) = raw.get("/events?subject=c").json["events"]
    assert (told["code"], told["subject"]) == ("launched", made.id)


def test_a_range_of_nodes_is_for_managed_jobs(raw: Raw) -> None:
    elastic = {**TASK, "num_nodes": 3, "min_nodes": 1}
    answer = raw.post("/launch", {"task": elastic, "cluster": "c"})
    assert (answer.status, answer.json["code"]) == (422, "spec-invalid")
    assert answer.json["what"] == "`num_nodes: 1-3` is a range, and a cluster has a fixed number of nodes"
    assert raw.post("/jobs", {"tasks": [elastic]}).status == 200
    assert raw.post("/jobs", {"tasks": [{**elastic, "min_nodes": 4}]}).json["what"] == (
        "min_nodes is 4: below num_nodes, or 0"
    )


def test_what_is_rented_is_queued_and_ordered_by_the_controllers(server: IdleServer, raw: Raw) -> None:
    pool = server.providers.get("pool")
    assert isinstance(pool, StaticProvider)
    pool.offers = [an_offer(capacity=Capacity.ON_DEMAND, price_micro_usd=1)]
    made = raw.post("/launch", {"task": TASK, "cluster": "c"}).json
    assert cluster(server, "c").phase is WorkloadPhase.QUEUED
    assert len(rows(server).claims) == 0 and made["cluster_id"] in server.controllers.woken
    server.order()
    assert cluster(server, "c").phase is WorkloadPhase.STARTING
    (claim,) = rows(server).claims_of(made["cluster_id"])
    assert (claim.phase, claim.count, claim.desired) == (ClaimPhase.REQUESTED, 1, Desired.RUN)


def test_names_are_given_and_checked(server: IdleServer, raw: Raw) -> None:
    name = raw.post("/launch", {"task": TASK}).json["cluster"]
    assert name.startswith("argosy-")
    assert len(name) == len("argosy-") + 4
    bad = raw.post("/launch", {"task": TASK, "cluster": "Not A Name"})
    assert (bad.status, bad.json["code"]) == (400, "usage")
    assert "not-a-name" in bad.json["hint"]


def test_launch_without_run_makes_the_cluster_only(server: IdleServer, raw: Raw) -> None:
    reply = raw.post("/launch", {"task": {}, "cluster": "c"}).json
    assert reply["job"] is None
    assert rows(server).jobs_of(reply["cluster_id"]) == ()


def test_no_offer_says_why_not_each(server: IdleServer, raw: Raw) -> None:
    cloud = StaticProvider(
        msgspec.structs.replace(server.providers.get("pool").manifest, name="cloud", title="x"), []
    )
    cloud.error = border.CredentialsRejected("the key is no longer valid")
    server.providers.by_name["cloud"] = cloud
    task = {
        "name": "train",
        "run": "x",
        "num_nodes": 2,
        "resources": [{"accelerator": {"model": "A100", "milli": 8000}}],
    }
    answer = raw.post("/launch", {"task": task})
    assert (answer.status, answer.json["code"]) == (422, "no-offer")
    assert answer.json["what"] == "no offer fits task `train` (A100:8 ×2)"
    assert answer.json["details"] == [
        "pool   –  accelerator  has no accelerator, asked for A100:8",
        "cloud  –  credentials  the key is no longer valid",
    ]
    assert "argosy check" in answer.json["hint"]
    assert raw.get("/status").json["clusters"] == []
    planned = raw.post("/plan", {"task": task}).json["plan"]
    assert planned.get("choices", []) == []
    assert [each["code"] for each in planned["rejected"]] == ["accelerator", "credentials"]


def test_launches_at_once_all_wait_for_the_pool(gpus: IdleServer) -> None:
    raw = Raw(gpus.socket)
    whole = {"run": "x", "resources": [{"accelerator": {"model": "A100", "milli": 2000}}]}
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda i: raw.post("/launch", {"task": whole, "cluster": f"c{i}"}).json, range(4))
        )
    assert all("choices" in reply["plan"] for reply in replies)
    assert len(rows(gpus).claims) == 0  # who gets the devices is decided by one, not by four requests
    assert [view["status"] for view in raw.get("/status").json["clusters"]] == ["queued"] * 4
    give_machines(gpus, "c0")
    late = raw.post("/launch", {"task": whole, "cluster": "late"}).json
    assert "choices" not in late["plan"] and "2 of 2 in use" in late["warnings"][0]
    assert "waits for 2 A100" in raw.get("/clusters/late").json["detail"]


def test_a_live_cluster_is_used_again(server: IdleServer, raw: Raw) -> None:
    first = raw.post(
        "/launch", {"task": {**TASK, "resources": [{"cpus": {"amount": 2000}}]}, "cluster": "c"}
    ).json
    give_machines(server, "c")
    again = raw.post(
        "/launch", {"task": TASK, "cluster": "c", "down": True, "autostop": {"idle_s": 60, "down": True}}
    ).json
    assert (again["cluster_id"], again["created"], again["job"]["number"]) == (first["cluster_id"], False, 2)
    assert cluster(server, "c").spec.down_when_done
    assert cluster(server, "c").spec.autostop.idle_s == 60
    for wish, why in [
        ({"cpus": {"amount": 4000}}, "its nodes have 2 CPUs"),
        ({"accelerator": {"model": "A100", "milli": 1000}}, "it has no accelerator"),
        ({"memory": {"amount": 64 * GIB}}, "its nodes have 32 GB of memory"),
        ({"node_disk": {"bound": {"amount": 10**9}}}, "it has no local disk that is known"),
        ({"infra": {"provider": "cloud"}}, "it is on pool"),
    ]:
        refused = raw.post("/launch", {"task": {**TASK, "resources": [wish]}, "cluster": "c"})
        assert (refused.status, refused.json["code"]) == (409, "conflict")
        assert why in refused.json["what"]
    wide = raw.post("/launch", {"task": {**TASK, "num_nodes": 2}, "cluster": "c"})
    assert wide.json["what"] == "the task needs 2 nodes; cluster `c` has 1"
    either = {**TASK, "resources": [{"cpus": {"amount": 4000}}, {"cpus": {"amount": 1000}}]}
    (ref,) = raw.post("/exec", {"tasks": [either], "cluster": "c"}).json["jobs"]
    job = rows(server).workloads[ref["id"]]
    assert job.spec.task.resources[0].cpus.amount == 1000  # type: ignore[union-attr]
    reply = raw.post("/launch", {"task": either, "cluster": "c"}).json  # the size of nodes, not a job's share
    job = rows(server).workloads[reply["job"]["id"]]
    assert job.spec.task.resources[0].cpus is None  # type: ignore[union-attr]


def test_what_recovers_only_managed_jobs_is_said(raw: Raw) -> None:
    task = {**TASK, "resources": [{"recovery": {"max_restarts_on_errors": 3}}]}
    told = "`job_recovery` is ignored here: it acts on managed jobs only (`argosy jobs launch`)"
    assert raw.post("/launch", {"task": task, "cluster": "c"}).json["warnings"] == [told]
    assert raw.post("/launch", {"task": task, "cluster": "c"}).json["warnings"] == [told]
    assert raw.post("/exec", {"tasks": [task], "cluster": "c"}).json["warnings"] == [told]
    assert "warnings" not in raw.post("/jobs/launch", {"tasks": [task]}).json


def test_launch_wakes_a_stopped_cluster(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": TASK, "cluster": "c"})
    run_cluster(server, "c")
    assert raw.post("/clusters/c/stop").json == {"names": ["c"]}
    assert cluster(server, "c").desired is Desired.STOP
    assert raw.get("/clusters/c").json["status"] == "stopping"
    raw.post("/launch", {"task": TASK, "cluster": "c"})
    assert cluster(server, "c").desired is Desired.RUN


def test_a_cluster_that_goes_takes_no_more_jobs(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": TASK, "cluster": "c"})
    assert raw.ask("DELETE", "/clusters/c").json == {"names": ["c"]}
    assert raw.ask("DELETE", "/clusters/c").status == 200  # again is fine
    for answer in (
        raw.post("/launch", {"task": TASK, "cluster": "c"}),
        raw.post("/exec", {"cluster": "c", "tasks": [TASK]}),
        raw.post("/clusters/c/start"),
        raw.post("/clusters/c/stop"),
    ):
        assert (answer.status, answer.json["code"]) == (409, "wrong-state")


def test_unknown_clusters_are_said_with_a_guess(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": TASK, "cluster": "train"})
    for answer in (
        raw.post("/exec", {"cluster": "trian", "tasks": [TASK]}),
        raw.get("/clusters/trian"),
        raw.get("/jobs?cluster=trian"),
        raw.ask("DELETE", "/clusters/trian"),
    ):
        assert (answer.status, answer.json["code"]) == (404, "not-found")
        assert answer.json["hint"] == "did you mean `train`?"


def test_what_cannot_rest_is_not_stopped(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": TASK, "cluster": "c"})
    give_machines(server, "c")
    pool = server.providers.get("pool")
    can = msgspec.structs.replace(pool.manifest.capabilities, stop=False)
    pool.manifest = msgspec.structs.replace(pool.manifest, capabilities=can)
    answer = raw.post("/clusters/c/stop")
    assert (answer.status, answer.json["code"]) == (501, "unsupported")


# -- secrets ----------------------------------------------------------------------------------------


def test_secrets_stay_out_of_rows_and_answers(server: IdleServer, raw: Raw) -> None:
    task = {**TASK, "secrets": {"TOKEN": "hunter2-hunter2"}}
    reply = raw.post("/launch", {"task": task, "cluster": "c"}).json
    raw.post("/jobs", {"tasks": [task]})
    job_id = reply["job"]["id"]
    assert server.do(server.store.load_secrets(job_id)) == {"TOKEN": "hunter2-hunter2"}
    assert rows(server).workloads[job_id].spec.task.secrets == {"TOKEN": ""}  # type: ignore[union-attr]
    for path in ("/status", "/status?all=true", "/jobs?cluster=c", f"/jobs/{job_id}", "/jobs", "/events"):
        assert b"hunter2" not in raw.get(path).body


def test_names_of_variables_are_checked_and_values_not_echoed(raw: Raw) -> None:
    for bad in ({"envs": {"A B": "hunter2"}}, {"secrets": {"ARGOSY_X": "hunter2"}}):
        answer = raw.post("/launch", {"task": {**TASK, **bad}})
        assert (answer.status, answer.json["code"]) == (422, "spec-invalid")
        assert b"hunter2" not in answer.body
    for field in ("envs", "secrets"):
        answer = raw.post("/launch", {"task": {**TASK, field: {"LARGE": "x" * (128 << 10)}}})
        assert (answer.status, answer.json["code"]) == (413, "too-large")
        assert "`LARGE`" in answer.json["what"]


# -- exec, jobs -------------------------------------------------------------------------------------


def test_a_thousand_jobs_are_one_request(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": {}, "cluster": "c"})
    server.controllers.woken.clear()
    before = server.store.seq
    tasks = [{"run": f"echo {i}", "secrets": {"K": f"value-{i}"}} for i in range(1000)]
    answer = raw.post("/exec", {"cluster": "c", "tasks": tasks})
    assert [job["number"] for job in answer.json["jobs"]] == list(range(1, 1001))
    assert server.store.seq - before <= 2
    assert len(server.controllers.woken) == 1
    live = rows(server).jobs_of(cluster(server, "c").id)
    assert [job.spec.task.run for job in live[:2]] == ["echo 0", "echo 1"]  # type: ignore[union-attr]
    assert not live[0].spec.run_setup  # type: ignore[union-attr]
    assert server.do(server.store.load_secrets(live[7].id)) == {"K": "value-7"}


def test_pages_of_the_queue(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": {}, "cluster": "c"})
    raw.post("/exec", {"cluster": "c", "tasks": [TASK] * 5})
    first = raw.get("/jobs?cluster=c&limit=2").json
    assert [job["number"] for job in first["jobs"]] == [5, 4]
    second = raw.get(f"/jobs?cluster=c&limit=2&after={first['next']}").json
    third = raw.get(f"/jobs?cluster=c&limit=2&after={second['next']}").json
    assert [job["number"] for job in second["jobs"] + third["jobs"]] == [3, 2, 1]
    assert third.get("next") is None


def test_the_same_key_gives_the_same_answer(server: IdleServer, raw: Raw) -> None:
    for path, body in [
        ("/launch", {"task": TASK, "key": "k1"}),
        ("/exec", {"cluster": "c", "tasks": [TASK, TASK], "key": "k2"}),
        ("/jobs", {"tasks": [TASK], "key": "k3"}),
    ]:
        raw.post("/launch", {"task": {}, "cluster": "c"})
        with ThreadPoolExecutor(4) as pool:
            answers = {pool.submit(raw.post, path, body).result().body for _ in range(3)}
            answers |= {each.body for each in pool.map(lambda _, p=path, b=body: raw.post(p, b), range(4))}
        assert len(answers) == 1
    counts = [len(rows(server).jobs_of(row.id)) for row in rows(server).clusters()]
    assert sorted(counts) == [1, 2]
    assert len(rows(server).managed_jobs()) == 1


def test_managed_jobs(gpus: IdleServer) -> None:
    raw = Raw(gpus.socket)
    reply = raw.post("/jobs", {"tasks": [{**ONE_GPU, "name": "train"}], "user": "me"}).json
    (view,) = raw.get("/jobs").json["jobs"]
    assert (view["id"], view["managed"], view["status"], view["cluster"]) == (
        reply["jobs"][0]["id"],
        True,
        "queued",
        None,
    )
    assert view["task_id"] == f"argosy-{view['id']}"
    assert raw.get("/status").json["jobs"] == [view]
    never = raw.post(
        "/jobs", {"tasks": [{"run": "x", "resources": [{"accelerator": {"model": "H100", "milli": 1000}}]}]}
    )
    assert (never.status, never.json["code"]) == (422, "no-offer")
    assert raw.get("/jobs/1").json["id"] == view["id"]


def test_files_must_be_there(raw: Raw) -> None:
    answer = raw.post("/launch", {"task": {**TASK, "workdir": ".", "workdir_tree": "0" * 64}})
    assert (answer.status, answer.json["code"]) == (409, "conflict")
    assert "uploads" in answer.json["hint"]


def test_fields_that_do_nothing_are_named(raw: Raw) -> None:
    reply = raw.post("/launch", {"task": {**TASK, "not_executed": ["resources.ports", "config"]}}).json
    assert reply["warnings"] == ["not supported yet, ignored: config, resources.ports"]


# -- cancel -----------------------------------------------------------------------------------------


def test_cancel_by_number_by_id_and_all(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": {}, "cluster": "c"})
    jobs = raw.post("/exec", {"cluster": "c", "tasks": [TASK] * 4}).json["jobs"]
    reply = raw.post("/jobs/cancel", {"cluster": "c", "jobs": ["1", jobs[1]["id"], "1"]}).json
    assert reply["names"] == ["1", "2", "1"]
    wished = {job.number: job.desired for job in rows(server).jobs_of(cluster(server, "c").id)}
    assert wished == {1: Desired.END, 2: Desired.END, 3: Desired.RUN, 4: Desired.RUN}
    assert raw.post("/jobs/cancel", {"cluster": "c", "all": True}).status == 200
    assert all(job.desired is Desired.END for job in rows(server).jobs_of(cluster(server, "c").id))
    assert raw.get("/jobs?cluster=c&limit=1").json["jobs"][0]["status"] == "stopping"
    unknown = raw.post("/jobs/cancel", {"cluster": "c", "jobs": ["99"]})
    assert (unknown.status, unknown.json["code"]) == (404, "not-found")
    assert raw.post("/jobs/cancel", {"cluster": "c"}).json["code"] == "usage"
    assert raw.post("/jobs/cancel", {"jobs": ["1"]}).status == 404  # of managed jobs there is none


def test_cancelling_what_has_finished_is_fine(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": TASK, "cluster": "c"})
    (job,) = rows(server).jobs_of(cluster(server, "c").id)
    put(server, replace(job, phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED, ended_ms=5))
    assert raw.post("/jobs/cancel", {"cluster": "c", "jobs": ["1"]}).json == {}


# -- views ------------------------------------------------------------------------------------------


def test_the_view_of_a_cluster(gpus: IdleServer) -> None:
    raw = Raw(gpus.socket)
    raw.post("/launch", {"task": ONE_GPU, "cluster": "c", "autostop": {"idle_s": 600}})
    raw.post("/exec", {"cluster": "c", "tasks": [ONE_GPU, ONE_GPU]})
    _, claim = run_cluster(gpus, "c", gpus=2)
    put(gpus, replace(claim, choice=replace(claim.choice, price_micro_usd=2_000_000)))
    node = rows(gpus).nodes_of(cluster(gpus, "c").id)[0]
    first = rows(gpus).jobs_of(cluster(gpus, "c").id)[0]
    attempt = an_attempt(workload_id=first.id, placements=())
    put(gpus, changed(first, phase=WorkloadPhase.STARTING, attempts=1, attempt_id=attempt.id), attempt)
    facts = replace(node.facts, load_milli=1500, memory_used_bytes=GIB)
    gpus.call(lambda: gpus.controllers.observed.link_up(node.id, facts, 0))
    view = raw.get("/clusters/c").json
    listed = raw.get("/status").json["clusters"][0]
    assert view == listed | {"cost_micro_usd": view["cost_micro_usd"]}  # which grows between the two
    assert (view["status"], view["infra"], view["resources"], view["num_nodes"]) == (
        "running",
        "pool",
        "A100:1",
        1,
    )
    assert (view["jobs_running"], view["jobs_queued"]) == (1, 2)
    assert view["price_micro_usd"] == 2_000_000
    assert 2_000_000 <= view["cost_micro_usd"] < 2_100_000  # held for an hour
    assert (view["nodes"][0]["load_milli"], view["nodes"][0]["memory_used_bytes"]) == (1500, GIB)
    assert len(view["nodes"][0]["devices"]) == 2
    (cost,) = raw.get("/costs").json["costs"]
    assert (cost["name"], cost["kind"], cost["price_micro_usd"]) == ("c", "cluster", 2_000_000)
    assert 3600 <= cost["held_s"] < 3700
    put(gpus, replace(rows(gpus).nodes[node.id], phase=NodePhase.UNREACHABLE))
    view = raw.get("/clusters/c").json
    assert view["status"] == "degraded"
    assert "node 0 does not answer" in view["detail"]


def test_why_jobs_wait(gpus: IdleServer) -> None:
    """The controllers know; every view tells it."""
    raw = Raw(gpus.socket)
    raw.post("/launch", {"task": ONE_GPU, "cluster": "c"})
    jobs = raw.post("/exec", {"cluster": "c", "tasks": [ONE_GPU]}).json["jobs"]
    id = jobs[0]["id"]
    gpus.controllers.whys[id] = Waiting(ask_id=id, code="capacity", text="waits for 1 A100")
    second, first = raw.get("/jobs?cluster=c").json["jobs"]
    assert (second["detail"], first.get("detail", "")) == ("waits for 1 A100", "")
    assert raw.get(f"/jobs/{id}").json == second


def test_how_a_job_ended(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": TASK, "cluster": "c"})
    (job,) = rows(server).jobs_of(cluster(server, "c").id)
    from argosy.model.reasons import Reason

    attempt = an_attempt(workload_id=job.id)
    put(server, changed(job, phase=WorkloadPhase.STARTING, attempts=1, attempt_id=attempt.id), attempt)
    job, attempt = rows(server).workloads[job.id], rows(server).attempts[attempt.id]
    put(
        server,
        replace(
            job,
            phase=WorkloadPhase.FINISHED,
            outcome=Outcome.FAILED,
            reason=Reason.USER_CODE_FAILED,
            detail="exited with code 3",
            ended_ms=9,
        ),
        replace(attempt, phase=AttemptPhase.ENDED, exit_codes=(143, 3), failed_rank=1, ended_ms=9),
    )
    (view,) = raw.get("/jobs?cluster=c").json["jobs"]
    assert (view["status"], view["phase"], view["outcome"], view["exit_codes"]) == (
        "failed",
        "finished",
        "failed",
        [143, 3],
    )
    assert view["exit_code"] == 3  # not that of the rank that was told to stop
    assert view["detail"] == "exited with code 3. Log: `argosy logs c 1`"
    assert raw.get(f"/jobs/{job.id}").json == view
    assert raw.get("/jobs?cluster=c&live=true").json["jobs"] == []


def test_finished_clusters_are_shown_on_demand(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": {}, "cluster": "c"})
    workload, claim = run_cluster(server, "c")
    now_ms = server.store.clock.now_ms()
    put(
        server,
        replace(workload, phase=WorkloadPhase.STOPPING),
        replace(claim, phase=ClaimPhase.GONE, gone_ms=now_ms, cost_micro_usd=42),
    )
    put(
        server,
        replace(
            cluster(server, "c"), phase=WorkloadPhase.FINISHED, outcome=Outcome.CANCELLED, ended_ms=now_ms
        ),
    )
    assert raw.get("/status").json["clusters"] == []
    (view,) = raw.get("/status?all=true").json["clusters"]
    assert (view["status"], view["infra"], view["cost_micro_usd"], view.get("nodes", [])) == (
        "finished",
        "pool",
        42,
        [],
    )
    assert raw.get("/clusters/c").json == view
    assert raw.get("/costs").json["total_micro_usd"] == 42


def test_status_is_fresh_after_every_commit_and_fact(server: IdleServer, raw: Raw) -> None:
    assert raw.get("/status").json["clusters"] == []
    raw.post("/launch", {"task": {}, "cluster": "c"})
    assert [view["name"] for view in raw.get("/status").json["clusters"]] == ["c"]
    raw.get("/status?refresh=true")
    assert server.controllers.refreshed == 1


def test_check_and_offers(gpus: IdleServer) -> None:
    raw = Raw(gpus.socket)
    assert raw.get("/check").json["findings"] == [{"provider": "pool", "ok": True, "what": "is ready"}]
    assert len(raw.get("/offers?gpu=a100").json["offers"]) == 1
    assert raw.get("/offers?gpu=H100").json["offers"] == []
    pool = gpus.providers.by_name["pool"]
    assert isinstance(pool, StaticProvider)
    pool.error = border.Transient("the network is down")
    (finding,) = raw.get("/check").json["findings"]
    assert (finding["ok"], finding["what"]) == (False, "the network is down")
    assert raw.get("/offers").json["offers"] == []


def test_prices_decide(raw: Raw, server: IdleServer) -> None:
    def offer(price: int) -> Offer:
        return Offer(provider="cloud", shape=a_shape(), capacity=Capacity.ON_DEMAND, price_micro_usd=price)

    can = msgspec.structs.replace(server.providers.get("pool").manifest.capabilities, owned=False)
    manifest = msgspec.structs.replace(server.providers.get("pool").manifest, name="cloud", capabilities=can)
    server.providers.by_name["cloud"] = StaticProvider(manifest, [offer(9), offer(5)])
    reply = raw.post("/launch", {"task": {**TASK, "resources": [{"infra": {"provider": "cloud"}}]}}).json
    server.order()
    claim = rows(server).claims_of(reply["cluster_id"])[0]
    assert claim.choice.price_micro_usd == 5
    assert [each.price_micro_usd for each in claim.alternatives] == [9]
    cap = raw.post(
        "/launch",
        {"task": {**TASK, "resources": [{"infra": {"provider": "cloud"}, "max_hourly_micro_usd": 1}]}},
    )
    assert "max_hourly_cost" in cap.json["hint"]


def test_autostop_is_set(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": {}, "cluster": "c"})
    assert raw.post("/clusters/c/autostop", {"autostop": {"idle_s": 300, "down": True}}).status == 200
    assert cluster(server, "c").spec.autostop.idle_s == 300


def test_the_idle_time_of_autostop_begins_with_the_order(server: IdleServer, raw: Raw) -> None:
    raw.post("/launch", {"task": {}, "cluster": "c"})
    run_cluster(server, "c")
    for idle_ms in (1000, 0):  # 0: a job is live, and it is idle from that job's end on
        put(server, changed(cluster(server, "c"), active_ms=idle_ms))
        before_ms = server.store.clock.now_ms()
        assert raw.post("/clusters/c/autostop", {"autostop": {"idle_s": 60}}).status == 200
        since_ms = cluster_state(cluster(server, "c")).active_ms
        assert since_ms == 0 if not idle_ms else before_ms <= since_ms <= server.store.clock.now_ms()


def test_a_writer_in_between_is_no_problem(server: IdleServer, raw: Raw) -> None:
    """Many clients change the same cluster at once: all are carried out, none sees a conflict."""
    raw.post("/launch", {"task": {}, "cluster": "c"})

    def one(i: int) -> int:
        if i % 2:
            return raw.post("/clusters/c/autostop", {"autostop": {"idle_s": i + 1}}).status
        return raw.post("/exec", {"cluster": "c", "tasks": [TASK]}).status

    with ThreadPoolExecutor(32) as pool:
        assert set(pool.map(one, range(192))) == {200}
    assert len(rows(server).jobs_of(cluster(server, "c").id)) == 96


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.FAILED])
def test_exit_codes_are_told_of_every_job_that_ended(server: IdleServer, raw: Raw, outcome: Outcome) -> None:
    """Also of those that succeeded or were cancelled; in lists as of one job."""
    raw.post("/launch", {"task": TASK, "cluster": "c"})
    give_machines(server, "c")
    (job,) = rows(server).jobs_of(cluster(server, "c").id)
    attempt = an_attempt(workload_id=job.id)
    put(server, changed(job, phase=WorkloadPhase.STARTING, attempts=1, attempt_id=attempt.id), attempt)
    job, attempt = rows(server).workloads[job.id], rows(server).attempts[attempt.id]
    ended = replace(job, phase=WorkloadPhase.FINISHED, outcome=outcome, ended_ms=9)
    put(server, ended, replace(attempt, phase=AttemptPhase.ENDED, exit_codes=(0, 143), ended_ms=9))
    (view,) = raw.get("/jobs?cluster=c").json["jobs"]
    assert view["exit_codes"] == raw.get(f"/jobs/{job.id}").json["exit_codes"] == [0, 143]


def test_events_tell_what_was_asked_for_newest_last(server: IdleServer, raw: Raw) -> None:
    made = raw.post("/launch", {"task": TASK, "cluster": "c"}).json
    assert raw.post("/jobs/cancel", {"cluster": "c", "jobs": ["1"]}).status == 200
    assert raw.post("/clusters/c/stop").status == 200
    assert raw.post("/clusters/c/start").status == 200
    assert raw.ask("DELETE", "/clusters/c").status == 200
    told = raw.get("/events").json["events"]
    assert [(each["name"], each["code"]) for each in told] == [
        ("c", "launched"), ("c/1", "cancelling"), ("c", "stopping"), ("c", "starting"), ("c", "ending"),
    ]  # fmt: skip
    assert told[1]["subject"] == made["job"]["id"]
    newest = raw.get("/events?limit=2").json["events"]
    assert [each["code"] for each in newest] == ["starting", "ending"]
    oldest = raw.get(f"/events?limit=2&after={told[0]['seq']}").json["events"]
    assert [each["code"] for each in oldest] == ["cancelling", "stopping"]
    assert len(raw.get("/events?subject=c").json["events"]) == 4


def test_who_asks_for_news_waits_until_there_is_some(server: IdleServer, raw: Raw) -> None:
    assert raw.get("/events?wait_s=30").json["events"] == [], "the newest ones are told at once"
    told: list[str] = []

    def wait() -> None:
        told.extend(each["code"] for each in raw.get("/events?after=0&wait_s=30").json["events"])

    waiting = threading.Thread(target=wait)
    waiting.start()
    raw.post("/launch", {"task": TASK, "cluster": "c"})
    waiting.join(20)
    assert told == ["launched"]
    assert raw.get("/events?after=0&wait_s=30").json["events"], "what is there is told at once"


def test_numbers_have_no_gap_when_many_submit_at_once(gpus: IdleServer) -> None:
    """Also when some of them are refused, come twice or are in each other's way."""

    def submit(index: int) -> int | None:
        if index % 7 == 3:  # never fits
            answer = Raw(gpus.socket).ask("POST", "/jobs", {"tasks": [TOO_MUCH]})
            assert answer.status != 200 and b"no-offer" in answer.body
            return None
        key = f"key-{index // 2 if index % 10 in (4, 5) else index}"  # some clients repeat themselves
        answer = Raw(gpus.socket).ask("POST", "/jobs", {"tasks": [ONE_GPU], "key": key})
        assert answer.status == 200, answer.json
        return int(answer.json["jobs"][0]["number"])

    with ThreadPoolExecutor(12) as threads:
        numbers = {number for number in threads.map(submit, range(60)) if number is not None}
    assert numbers == set(range(1, len(numbers) + 1))


def test_ports_that_the_place_cannot_open_are_said_with_the_way_to_reach_them(raw: Raw) -> None:
    task = {**TASK, "resources": [{"ports": ["8000", "9000-9010"]}]}
    (told,) = raw.post("/launch", {"task": task, "cluster": "c"}).json["warnings"]
    assert told == "`ports` are not opened on pool: `argosy port-forward c 8000 9000` reaches them"
