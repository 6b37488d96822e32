"""Sessions: what is decided about one that comes up, is used, is not used, rests and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from argosy.apps.files import find_app
from argosy.controllers.job.environment import rank_orders
from argosy.controllers.observed import Facts
from argosy.controllers.session.decide import decide
from argosy.controllers.session.idle import ends_then, last_use, limits_of
from argosy.controllers.view import Action, Emit, Put, View, WakeAt
from argosy.infra.agent_port import AgentDirectory
from argosy.model.apps import App, Idle, Isolation
from argosy.model.facts import Device, NodeFacts, RankFact, RankPhase
from argosy.model.kinds import kind_of
from argosy.model.kinds.job import JobSpec, JobStatus, job_spec, kept_as
from argosy.model.kinds.kind import Checkpoint
from argosy.model.kinds.session import SESSION, SessionSpec, SessionStatus, session_state
from argosy.model.offer import DeviceShare, Placement
from argosy.model.phases import AttemptPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Row, Workload
from argosy.model.tenancy import Queue, Resting, Tenancy
from argosy.server.apps.live import LiveApps
from argosy.server.ports import Controllers
from argosy.server.session_words import session_lines
from argosy.store import Snapshot
from argosy.store.store import Store
from argosy.testing.builders import a_job, a_node, a_task, an_attempt, changed, want_gpus

NOW = 1_000_000_000
MINUTE = 60_000
APP = App(name="jupyter", title="JupyterLab", command="jupyter lab", listens="socket")


def a_session(**fields: Any) -> Workload:
    spec = SessionSpec(app=APP, task=a_task())
    row = Workload(
        id="ses-0", kind=SESSION.name, name="lab", spec=spec, status=SessionStatus(), created_ms=NOW
    )
    return changed(row, **fields)


def a_body(**fields: Any) -> Workload:
    return a_job(id="job-0", managed=True, parent_id="ses-0", **fields)


class Seen:
    """A session with its job on a node; `fact` is what the node said of the app."""

    def __init__(self, session: Workload, *rows: Row) -> None:
        self.session, self.rows, self.facts = session, list(rows), Facts()

    def says(self, **fact: Any) -> None:
        told = RankFact(id="att-0.0", phase=RankPhase.RUNNING, **fact)
        self.facts.set_ranks("nod-0", [told], complete=True)

    def decided(self, now_ms: int = NOW) -> list[Action]:
        rows = Snapshot.of([self.session, *self.rows])
        view = View(now_ms=now_ms, rows=rows, observed=self.facts, offers=[], abilities={})
        return decide(view, self.session, lambda prefix: f"{prefix}-new")

    def after(self, now_ms: int = NOW) -> Workload:
        """The session as it is written, or as it was."""
        return next((row for row in self.written(now_ms) if row.id == "ses-0"), self.session)

    def written(self, now_ms: int = NOW) -> list[Workload]:
        puts = [action.row for action in self.decided(now_ms) if isinstance(action, Put)]
        return [row for row in puts if isinstance(row, Workload)]

    def events(self, now_ms: int = NOW) -> list[str]:
        return [each.event.text for each in self.decided(now_ms) if isinstance(each, Emit)]


NEVER = Idle()


def running(idle: Idle = NEVER, **fields: Any) -> Seen:
    """Up since two hours, unused since one."""
    session = a_session(
        phase=WorkloadPhase.RUNNING, up_ms=NOW - 120 * MINUTE, active_ms=NOW - 60 * MINUTE, starts=1,
        started_ms=NOW - 120 * MINUTE, idle=idle, **fields,
    )  # fmt: skip
    body = a_body(phase=WorkloadPhase.RUNNING)
    attempt = an_attempt(id="att-0", workload_id="job-0", phase=AttemptPhase.RUNNING)
    node = a_node(id="nod-0", workload_id="job-0", phase=NodePhase.READY)
    seen = Seen(session, body, attempt, node)
    seen.says(ready_ms=NOW - 120 * MINUTE)
    return seen


def test_a_session_makes_its_job_which_finds_its_files() -> None:
    kept = Checkpoint(tree="t", at_ms=1, size_bytes=2)
    session = a_session(
        phase=WorkloadPhase.STOPPED, starts=2, checkpoint=kept, ran_on="clm-9", isolation=Isolation.PROCESS
    )
    changed_row, job = Seen(session).written()
    assert changed_row.phase is WorkloadPhase.STARTING and session_state(changed_row).starts == 3
    sitting = job_spec(job).sitting
    assert sitting is not None and (sitting.session, sitting.isolation) == ("ses-0", Isolation.PROCESS)
    assert (job.parent_id, job.number, kept_as(job)) == ("ses-0", 3, "ses-0")
    assert isinstance(job.status, JobStatus) and (job.status.checkpoint, job.status.ran_on) == (kept, "clm-9")


def test_it_is_up_when_its_app_answers_and_not_before() -> None:
    seen = running()
    seen.session = a_session(phase=WorkloadPhase.STARTING, starts=1)
    seen.says()
    assert seen.decided() == []
    seen.says(ready_ms=NOW - 5)
    up = seen.after()
    assert (up.phase, up.started_ms, session_state(up).up_ms) == (WorkloadPhase.RUNNING, NOW - 5, NOW)


@pytest.mark.parametrize(
    ("started_ms", "outcome", "phase", "desired"),
    [
        (0, Outcome.FAILED, WorkloadPhase.FINISHED, Desired.RUN),  # it never came up
        (5, Outcome.FAILED, WorkloadPhase.STOPPING, Desired.STOP),  # people's work is in it
        (5, Outcome.SUCCEEDED, WorkloadPhase.STOPPING, Desired.STOP),
    ],
)
def test_an_app_that_ends_by_itself(
    started_ms: int, outcome: Outcome, phase: WorkloadPhase, desired: Desired
) -> None:
    session = a_session(phase=WorkloadPhase.STARTING, started_ms=started_ms, starts=1)
    seen = Seen(session)
    ended = a_body(phase=WorkloadPhase.FINISHED, outcome=outcome, detail="the program exited with code 3")
    rows = Snapshot.of([session])
    live = Snapshot.of([session, a_body()])
    seen.decided = lambda now_ms=NOW: decide(  # type: ignore[method-assign]
        View(now_ms=now_ms, rows=_Ended(rows, ended), observed=seen.facts, offers=[], abilities={}),  # type: ignore[arg-type]
        session, lambda prefix: f"{prefix}-new",
    )  # fmt: skip
    assert live.children_of("ses-0")
    after = seen.after()
    assert (after.phase, after.desired) == (phase, desired)
    text = "its app has ended" if outcome is Outcome.SUCCEEDED else "the program exited with code 3"
    assert after.detail == text


class _Ended:
    """Rows, and a job of the session that has ended."""

    def __init__(self, rows: Snapshot, ended: Workload) -> None:
        self._rows, self._ended = rows, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)

    def ends_for(self, workload_id: str) -> list[Workload]:
        return [self._ended]


def test_who_is_not_used_is_warned_then_rests() -> None:
    seen = running(Idle(after_s=3600 + 300))
    assert seen.events() == ["is put to rest in 5m: nobody used it for 1h 5m"]
    seen.session = seen.after()
    assert session_state(seen.session).warned_ms == NOW and seen.events(NOW + 1) == []
    rests = seen.after(NOW + 5 * MINUTE)
    assert (rests.desired, rests.reason) == (Desired.STOP, Reason.IDLE)
    assert rests.detail == "nobody used it for 1h 5m"


def test_use_takes_the_warning_back() -> None:
    seen = running(Idle(after_s=3600 + 300))
    seen.session = seen.after()
    seen.facts.set_used("ses-0", NOW + MINUTE, "requests")
    used = seen.after(NOW + MINUTE)
    state = session_state(used)
    assert (state.active_ms, state.active_by) == (NOW + MINUTE, "requests")
    assert seen.after(NOW + 6 * MINUTE).desired is Desired.RUN
    seen.session = changed(used, warned_ms=NOW)
    assert session_state(seen.after(NOW + 2 * MINUTE)).warned_ms == 0


@pytest.mark.parametrize("by", ["kernels", "cpu", "terminal"])
def test_work_that_the_node_sees_is_use(by: str) -> None:
    seen = running(Idle(after_s=1800))
    assert seen.after().desired is Desired.STOP
    seen.says(ready_ms=1, active_ms=NOW - MINUTE, active_by=by)
    assert seen.after().desired is Desired.RUN
    assert last_use(seen.session, seen.facts.rank("att-0.0"), seen.facts).by == by


def test_quiet_gpus_put_it_to_rest_although_somebody_types() -> None:
    task = a_task(resources=(want_gpus(500),))
    seen = running(Idle(after_s=3600, gpu_after_s=1800), task=task)
    seen.facts.set_used("ses-0", NOW, "requests")
    rests = seen.after()
    assert (rests.desired, rests.detail) == (Desired.STOP, "its GPUs did nothing for 30m")
    seen.says(ready_ms=1, gpu_active_ms=NOW - MINUTE)
    assert seen.after().desired is Desired.RUN
    bare = running(Idle(gpu_after_s=1800))  # without a GPU there is nothing to be quiet
    assert bare.after().desired is Desired.RUN


def test_the_gpu_of_others_does_not_keep_a_session() -> None:
    """Half of a GPU: what the other half does is not its work, where the node can tell."""
    seen = running(Idle(gpu_after_s=1800), task=a_task(resources=(want_gpus(500),)))
    busy = Device(index=0, model="A100", utilisation_percent=90)
    seen.facts.link_up("nod-0", NodeFacts(devices=(busy,)), NOW)
    assert seen.after().desired is Desired.RUN  # nobody says whose work it is
    seen.says(ready_ms=1, gpu_active_ms=NOW - 31 * MINUTE)
    assert seen.after().detail == "its GPUs did nothing for 30m"


def test_the_longest_time_and_what_then() -> None:
    seen = running(Idle(max_s=7200, then="end"))
    ends = seen.after()
    assert (ends.desired, ends.reason) == (Desired.END, Reason.MAX_DURATION)


def test_more_time_counts_for_every_limit() -> None:
    seen = running(Idle(after_s=1800, max_s=7200), snoozed_ms=NOW + 30 * MINUTE)
    assert seen.after().desired is Desired.RUN
    use = last_use(seen.session, None, seen.facts)
    assert {limit.at_ms for limit in limits_of(seen.session, use, Tenancy(), has_gpu=False)} == {
        NOW + 30 * MINUTE
    }


def test_to_rest_its_job_ends_first_and_what_it_kept_is_noted() -> None:
    seen = running()
    seen.session = changed(seen.session, desired=Desired.STOP, reason=Reason.STOPPED_BY_USER)
    stopping, body = seen.written()
    assert stopping.phase is WorkloadPhase.STOPPING and session_state(stopping).up_ms == 0
    assert (body.id, body.desired, body.reason) == ("job-0", Desired.END, Reason.STOPPED_BY_USER)
    seen.session, seen.rows = stopping, []
    assert seen.after().phase is WorkloadPhase.STOPPED


def test_a_lost_node_is_told_and_it_comes_back() -> None:
    seen = running()
    seen.rows[0] = a_body(phase=WorkloadPhase.RECOVERING, detail="node 0 is gone")
    lost = seen.after()
    assert (lost.phase, lost.detail, session_state(lost).up_ms) == (
        WorkloadPhase.RECOVERING, "node 0 is gone", 0,
    )  # fmt: skip
    seen.session, seen.rows[0] = lost, a_body(phase=WorkloadPhase.RUNNING)
    seen.session = seen.after()
    assert seen.session.phase is WorkloadPhase.STARTING
    assert seen.after().phase is WorkloadPhase.RUNNING


def test_the_end_waits_for_its_job() -> None:
    seen = running()
    seen.session = changed(seen.session, desired=Desired.END, reason=Reason.CANCELLED_BY_USER)
    [body] = seen.written()
    assert (body.id, body.desired) == ("job-0", Desired.END)
    seen.rows[0] = body
    assert seen.decided() == []
    seen.rows = []
    assert seen.after().outcome is Outcome.CANCELLED


def test_what_it_begins_with_comes_along_until_it_was_up() -> None:
    session = changed(a_session(), begins_with="d" * 64)
    for phase, started_ms in ((WorkloadPhase.QUEUED, 0), (WorkloadPhase.STOPPED, 0)):
        [_, job] = Seen(changed(session, phase=phase, started_ms=started_ms)).written()
        [mount], sitting = job_spec(job).task.file_mounts, job_spec(job).sitting
        assert sitting is not None and (mount.tree, f"~/workdir/{mount.target}") == ("d" * 64, sitting.seed)
    [_, job] = Seen(changed(session, phase=WorkloadPhase.STOPPED, started_ms=NOW)).written()
    sitting = job_spec(job).sitting
    assert sitting is not None and not sitting.seed and not job_spec(job).task.file_mounts


def test_what_a_resting_session_has_is_in_use() -> None:
    """Nobody sweeps it, however long it rests."""
    kept = Checkpoint(tree="t", at_ms=1, size_bytes=2)
    session = changed(a_session(checkpoint=kept), begins_with="u")
    assert [copy.tree for copy in kind_of(session).keeps(session)] == ["u", "t"]


def test_a_job_of_a_session_is_called_by_its_name() -> None:
    [_, job] = Seen(a_session()).written()
    from argosy.model.kinds import label, title

    assert isinstance(job.spec, JobSpec) and (label(job), title(job)) == ("lab", "session `lab`")


def test_in_a_container_the_image_brings_what_the_app_needs() -> None:
    app = msgspec.structs.replace(APP, needs=("jupyterlab",))
    for isolation, image, setup, folder in (
        (Isolation.SANDBOX, "", "pip install -q", True),
        (Isolation.CONTAINER, "lab:1", "", False),
    ):
        seen = Seen(a_session(app=app, isolation=isolation, image=image))
        job = next(row for row in seen.written() if row.kind == "job")
        attempt, node = an_attempt(id="att-0", workload_id=job.id), a_node(id="nod-0")
        ((_, order),) = rank_orders(job, attempt, [node], cluster=None, claim=None, shared_dir="")
        assert order.app is not None
        assert (order.app.isolation, order.app.image) == (isolation, image)
        assert setup in order.setup and bool(order.app.folder) is folder and (setup or not order.setup)


# ---- rules of queues and pools


TREE = Tenancy(
    queues=(
        Queue(path="acme", sessions=Resting(idle_s=7200, then="end")),
        Queue(path="acme/vision", sessions=Resting(gpu_idle_s=1800)),
        Queue(path="acme/vision/ann"),
    ),
    sessions=Resting(idle_s=36_000, max_s=86_400),
)
GPUS = a_task(resources=(want_gpus(500),))


def limits(queue: str, tenancy: Tenancy = TREE, **idle: Any) -> dict[str, str]:
    """By what it is put to rest: so long, and whose rule that is."""
    session = running(Idle(**idle), task=GPUS).session
    session = msgspec.structs.replace(session, queue=queue)
    use = last_use(session, None, Facts())
    found = {}
    for limit in limits_of(session, use, tenancy, has_gpu=True):
        what, _, rest = limit.why.partition(" for ")
        found[what.split()[-1]] = rest
    return found


@pytest.mark.parametrize(
    ("queue", "idle", "told"),
    [
        ("acme/vision/ann", {}, {
            "it": "2h, as queue `acme` says", "nothing": "30m, as queue `acme/vision` says",
            "up": "1d, as the pool says",
        }),
        ("other/bob", {}, {"it": "10h, as the pool says", "up": "1d, as the pool says"}),
        ("acme/vision/ann", {"after_s": 600}, {
            "it": "10m", "nothing": "30m, as queue `acme/vision` says", "up": "1d, as the pool says",
        }),
        ("acme/vision/ann", {"after_s": 0, "gpu_after_s": 0, "max_s": 0}, {}),
    ],
)  # fmt: skip
def test_a_session_comes_before_its_project_and_that_before_the_pool(
    queue: str, idle: dict[str, int], told: dict[str, str]
) -> None:
    assert limits(queue, **idle) == told


def test_a_firm_rule_can_be_made_shorter_and_never_longer() -> None:
    firm = Tenancy(
        queues=(Queue(path="acme", sessions=Resting(idle_s=72_000)),),
        sessions=Resting(idle_s=36_000, firm=True),
    )
    assert limits("acme", firm) == {"it": "10h, as the pool says"}
    assert limits("acme", firm, after_s=0) == {"it": "10h, as the pool says"}
    assert limits("acme", firm, after_s=90_000) == {"it": "10h, as the pool says"}
    assert limits("acme", firm, after_s=600) == {"it": "10m"}


def test_whether_it_ends_is_said_by_who_is_nearest() -> None:
    session = msgspec.structs.replace(running(Idle()).session, queue="acme/vision/ann")
    assert ends_then(session, TREE)
    assert not ends_then(msgspec.structs.replace(session, queue="other"), TREE)
    gentle = msgspec.structs.replace(
        TREE, queues=(*TREE.queues[:1], Queue(path="acme/vision", sessions=Resting(then="rest")))
    )
    assert not ends_then(session, gentle)


def test_the_rule_of_the_pool_puts_it_to_rest_with_its_warning() -> None:
    seen = running()
    seen.rows.append(Tenancy(sessions=Resting(idle_s=3600 + 300)))  # unused for an hour
    assert seen.events() == ["is put to rest in 5m: nobody used it for 1h 5m, as the pool says"]
    rests = seen.after(NOW + 5 * MINUTE)
    assert (rests.desired, rests.detail) == (Desired.STOP, "nobody used it for 1h 5m, as the pool says")


def test_explain_tells_every_figure() -> None:
    seen = running(Idle(after_s=5400, gpu_after_s=7200 + 60), task=GPUS)
    busy = Device(index=0, model="A100", utilisation_percent=3)
    seen.facts.link_up("nod-0", NodeFacts(devices=(busy,)), NOW)
    seen.says(ready_ms=1, gpu_active_ms=NOW - 31 * MINUTE)
    attempt = next(row for row in seen.rows if row.id == "att-0")
    share = DeviceShare(index=0, milli=500)
    seen.rows[1] = changed(attempt, placements=(Placement(rank=0, node_id="nod-0", devices=(share,)),))
    rows = Snapshot.of([seen.session, *seen.rows])
    assert session_lines(seen.session, rows, seen.facts, NOW) == [
        "it has been up for 2h",
        "used 1h ago, last by ",
        "its GPUs worked for it 31m ago; they are now at 3 %",
        "it is put to rest in 30m unless that changes: nobody used it for 1h 30m",
        "it is put to rest in 1h 30m unless that changes: its GPUs did nothing for 2h 1m",
    ]
    rests = Snapshot.of([changed(seen.session, phase=WorkloadPhase.STOPPED, detail="asked to")])
    assert session_lines(changed(seen.session, detail="asked to"), rests, seen.facts, NOW) == ["asked to"]


# ---- a day of a session, by a moved clock


class Day:
    """A session that is decided about as its wakes ask for, while somebody or something asks for paths of its
    app."""

    def __init__(self, app: str, idle: Idle, *, has_gpu: bool = False) -> None:
        found = find_app(Path("/none"), app)
        task = GPUS if has_gpu else a_task()
        self.seen = running(idle, task=task, app=found)
        self.seen.session = self.seen.session.with_status(up_ms=NOW, active_ms=NOW, active_by="start")
        self.at_ms, self.said = NOW, list[str]()
        self.apps = LiveApps(cast(Store, None), cast(AgentDirectory, None), cast(Controllers, self), self)

    # what the proxy asks of the server

    @property
    def observed(self) -> Facts:
        return self.seen.facts

    def wake(self, key: str) -> None:
        pass

    def now_ms(self) -> int:
        return self.at_ms

    # a clock

    def wait_until(self, until_ms: int) -> int:
        """The decisions up to then; when it was put to rest, 0: it was not."""
        while self.at_ms < until_ms:
            wakes = [until_ms]
            for action in self.seen.decided(self.at_ms):
                if isinstance(action, Emit):
                    self.said.append(action.event.text)
                if isinstance(action, WakeAt):
                    wakes.append(action.at_ms)
                if isinstance(action, Put) and isinstance(action.row, Workload):
                    self.seen.session = action.row
            if self.seen.session.desired is not Desired.RUN:
                return self.at_ms
            self.at_ms = max(self.at_ms + 1, min(wakes))
        return 0

    def browse(self, path: str, until_ms: int, every_s: int = 30) -> int:
        """An open tab that asks for this path; as `wait_until`."""
        while self.at_ms < until_ms:
            self.apps.use(self.seen.session, path)
            if rested := self.wait_until(min(until_ms, self.at_ms + every_s * 1000)):
                return rested
        return 0


def test_an_open_tab_of_tensorboard_does_not_hold_it_and_reading_does() -> None:
    limit = 60 * MINUTE
    day = Day("tensorboard", Idle(after_s=3600))
    rested = day.browse("/data/plugin/scalars/tags", NOW + 3 * limit)  # it asks by itself every 30 s
    assert NOW + limit <= rested <= NOW + limit + 15_000
    assert day.said == ["is put to rest in 10m: nobody used it for 1h", "nobody used it for 1h"]
    day = Day("tensorboard", Idle(after_s=3600))
    assert day.browse("/", NOW + 3 * limit) == 0


def test_typing_holds_it_and_the_time_counts_from_the_last_key() -> None:
    limit = 60 * MINUTE
    day = Day("jupyter", Idle(after_s=3600))
    assert day.browse("", NOW + 2 * limit, every_s=600) == 0  # bytes of a WebSocket
    last_ms = session_state(day.seen.session).active_ms
    day.seen.says(ready_ms=1, active_ms=last_ms + MINUTE, active_by="terminal")
    rested = day.browse("/api/kernels", NOW + 5 * limit)  # a tab that is left open
    assert last_ms + MINUTE + limit <= rested <= last_ms + MINUTE + limit + 15_000


def test_a_gpu_that_is_quiet_for_half_an_hour_ends_it_whoever_types() -> None:
    day = Day("jupyter", Idle(after_s=3600, gpu_after_s=1800), has_gpu=True)
    day.seen.says(ready_ms=1, gpu_active_ms=NOW + 5 * MINUTE)
    rested = day.browse("", NOW + 120 * MINUTE, every_s=10)
    assert NOW + 35 * MINUTE <= rested <= NOW + 35 * MINUTE + 15_000
    assert "is put to rest in 10m: its GPUs did nothing for 30m" in day.said
