"""quota, pool and explain on the command line: what people see, against a fake server."""

from __future__ import annotations

import xml.dom.minidom

import msgspec
import pytest
from command_line import CommandLine

from argosy.api.jobs import JobView
from argosy.api.launching import ExecRequest, JobsLaunchRequest, LaunchRequest
from argosy.api.pool import DeviceView, ExplainReply, MachineView, PoolList, PoolView, ShareView
from argosy.api.quota import QueueRequest, TenancyReply
from argosy.cli.pool_drawing import draw_rows
from argosy.model.facts import Device
from argosy.model.pooled import HolderView
from argosy.model.resources import Accelerator, Resources
from argosy.model.task import Task
from argosy.model.tenancy import Group, Preset, Queue, Tenancy
from argosy.pages.pool_map import render_html, render_svg
from argosy.pages.pool_text import legend_of, people_of
from argosy.testing.fake_memory import FakeLog
from argosy.testing.fake_server import FakeServer
from argosy.testing.shared_answers import POOL, STARTED_MS

TREE = """\
QUEUE     GPUS  GUARANTEED  DESERVED  LIMIT                        JOBS  WAIT  WEIGHT  NOTE
acme      5.75                           12  █████████▌··········     2     1
  speech   0.5                     4         ▊░░░░░░                  1                lends 1
    bob    0.5                               ▊                        1
  vision     5           2         4      8  ███████▒·····            1     1       2  borrows 1
    ann      5                               ████████▎                1     1
"""
POOL_TEXT = """\
dgx: 3 nodes, 5.75 of 12 GPUs used, 32 of 192 CPUs used, 1 takes nothing new, 1 waits

GPUS  ALL  USED  FREE  LARGEST GANGS THAT FIT NOW
A100   12  5.75  2.25  1 node with 2

USER  QUEUE            GPUS  RUNNING  WAITING
ann   acme/vision/ann     5        1        1
bob   acme/speech/bob   0.5        1
cho   default/cho      0.25        1

NODE   STATE   MODEL    GPUS   CPUS            MEMORY  GROUPS    DOMAIN          HOLDERS
dgx-0  open    A100      4/4   8/64   64 GB of 512 GB  training  block-1/rack-0        1
dgx-1  open    A100   1.75/4  24/64  192 GB of 512 GB  training  block-1/rack-0        3
dgx-2  closed  A100      0/4   0/64     0 B of 512 GB  training  block-1/rack-1

WAITS  JOB     USER  QUEUE            ASKS FOR  STARTS  WHY
    1  14 big  ann   acme/vision/ann  A100:4    ~25m    4 A100 on one node: at most 2 are free together
"""
MAP = """\
dgx: 3 nodes, 5.75 of 12 GPUs used, 32 of 192 CPUs used, 1 takes nothing new, 1 waits
dgx-0  AA AA AA AA   8/64 CPUs
dgx-1  AA bc ·· ··  24/64 CPUs
dgx-2  -- -- -- --   0/64 CPUs closed
A ann (5 GPUs)   B bob (0.5 GPUs)   C cho (0.25 GPUs)   ·· free (2.25 GPUs)   -- takes nothing new
"""


@pytest.fixture
def shared(server: FakeServer) -> FakeServer:
    server.tenancy = Tenancy(queues=(Queue(path="acme"),), rev=3)
    return server


# -- quota ------------------------------------------------------------------------------------------


def test_the_tree_of_queues(argosy: CommandLine, shared: FakeServer) -> None:
    assert argosy.good("quota", "get") == TREE
    assert argosy.good("queue", "--tree") == TREE
    reply = msgspec.json.decode(argosy.good("quota", "get", "acme/vision", "--json"), type=TenancyReply)
    assert [view.path for view in reply.queues] == ["acme/vision", "acme/vision/ann"]
    assert (
        argosy.good("quota", "get", "acme/vision", "--of", "jobs")
        .splitlines()[1]
        .startswith("acme/vision     1  ")
    )


def test_a_narrow_terminal_gets_a_short_bar_or_none(argosy: CommandLine, shared: FakeServer) -> None:
    argosy.env["COLUMNS"] = "80"
    lines = argosy.good("quota", "get").splitlines()
    assert max(map(len, lines)) <= 80 and "█" in lines[1] and "WEIGHT" not in lines[0]
    argosy.env["COLUMNS"] = "50"
    assert "█" not in argosy.good("quota", "get")


def test_without_queues_it_says_how_to_make_one(argosy: CommandLine) -> None:
    assert argosy.good("quota", "get") == (
        "No queues: everybody shares alike. Set one: argosy quota set TEAM --deserved gpus=8 --limit "
        "gpus=16\n"
    )
    done = argosy("quota", "export")
    assert (done.status, done.out, done.err) == (0, "", "There are no queues, groups or presets yet.\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("get", "acme/visio"), "error: there is no queue `acme/visio`\nhint: did you mean `acme/vision`?\n"),
        (("set", "x", "--limit", "gpu=3"), "--limit: `gpu` is not counted\nhint: did you mean `gpus`?\n"),
        (
            ("set", "x", "--deserved", "gpus=lots"),
            "--deserved: `lots` is no number of GPUs\nhint: write for example `gpus=8`\n",
        ),
        (
            ("set", "x", "--lend-limit", "memory=5potatoes"),
            "--lend-limit: `5potatoes` is not a size\nhint: write for example `8`, `512MB` or `1.5TB`\n",
        ),
        (
            ("set", "x"),
            "error: nothing is given: for example `--limit gpus=8`, or --remove\n"
            "hint: `argosy quota set --help` shows what it takes, with an example\n",
        ),
        (
            ("set", "x", "--weight", "0"),
            "error: --weight is above 0, not 0\nhint: `argosy quota set --help` shows what it takes, with "
            "an example\n",
        ),
        (
            ("set", "x", "--max-pending", "some"),
            "error: --max-pending is a whole number or `none`, not `some`\n"
            "hint: `argosy quota set --help` shows what it takes, with an example\n",
        ),
        (
            ("explain", "nowhere"),
            "error: there is no queue `nowhere`\nhint: `argosy status` lists what exists\n",
        ),
    ],
)
def test_what_is_wrong_about_queues(
    argosy: CommandLine, shared: FakeServer, words: tuple[str, ...], told: str
) -> None:
    done = argosy("quota", *words)
    assert (done.out, done.err) == ("", told) and done.status in (2, 4)


def test_a_queue_is_set(argosy: CommandLine, server: FakeServer) -> None:
    out = argosy.good(
        *("quota", "set", "team/vis", "--guaranteed", "gpus=8", "--deserved", "gpus=16"),
        *("--limit", "gpus=32,gpus/a100=16,cpus=64,memory=512GB,jobs=20", "--weight", "2"),
        *("--lend-limit", "gpus=4", "--max-pending", "none", "--over-limit", "refuse"),
    )
    assert out.splitlines()[1].startswith("team/vis     0           8        16     32  ")
    (seen,) = server.seen("set_queue")
    assert msgspec.json.decode(seen.body, type=QueueRequest) == QueueRequest(
        path="team/vis",
        guaranteed={"gpus": 8000},
        deserved={"gpus": 16_000},
        limit={"gpus": 32_000, "gpus/A100": 16_000, "cpus": 64_000, "memory": 512 << 30, "jobs": 20},
        lend_limit={"gpus": 4000},
        weight_milli=2000,
        max_pending=-1,
        refuse_over_limit=True,
    )
    assert argosy.good("quota", "set", "team/vis", "--remove") == "queue `team/vis` is removed\n"


def test_a_queue_in_words(argosy: CommandLine, shared: FakeServer) -> None:
    assert argosy.good("quota", "explain", "acme/vision", "--request", "A100:8") == (
        "- `acme/vision` uses 5 GPUs (2 guaranteed, 4 deserved, 8 at most)\n- a request for A100:8 would "
        "wait\n"
    )


def test_a_file_is_applied_and_exported(argosy: CommandLine, server: FakeServer) -> None:
    text = "queues:\n  acme:\n    limit:\n      gpus: 8\npolicy:\n  backfill: none\n"
    (argosy.folder / "q.yaml").write_text(text)
    assert (
        argosy.good("quota", "apply", "--check", "q.yaml")
        == "q.yaml is right: 1 queue, 0 groups, 0 presets\n"
    )
    assert argosy.good("quota", "apply", "q.yaml") == "set: 1 queue, 0 groups, 0 presets\n"
    assert argosy.good("quota", "export") == text
    (argosy.folder / "bad.yaml").write_text("queues:\n  acme: {limit: {gpus: x}}\n")
    done = argosy("quota", "apply", "bad.yaml")
    assert (done.status, done.err) == (
        2,
        "bad.yaml:2:18: `limit.gpus`: `x` is no number of GPUs\nhint: write for example `gpus: 8`\n",
    )


# -- pool -------------------------------------------------------------------------------------------


def test_pool(argosy: CommandLine, server: FakeServer) -> None:
    assert argosy.good("pool") == argosy.good("pool", "top", "dgx") == POOL_TEXT
    done = argosy("pool", "top", "dgxx")
    assert (done.status, done.err) == (4, "error: there is no pool `dgxx`\nhint: did you mean `dgx`?\n")
    reply = msgspec.json.decode(argosy.good("pool", "--json"), type=PoolList)
    assert reply.pools == (POOL,)
    server.pools = ()
    assert argosy.good("pool").startswith("No pools: ")


def test_the_map_without_colours(argosy: CommandLine) -> None:
    assert argosy.good("pool", "map") == MAP
    argosy.env["COLUMNS"] = "20"
    assert max(map(len, argosy.good("pool", "map").splitlines()[1:])) <= 26


def big_pool(gpus: int, used: int) -> PoolView:
    devices = tuple(
        DeviceView(
            device=Device(index=index, model="H100"),
            shares=(ShareView(holder=0, milli=125 * (index % 8 + 1)),) if index < used else (),
        )
        for index in range(gpus)
    )
    machine = MachineView(
        id="m", name="a-machine-with-a-long-name.example.org", devices=devices, cpus_milli=1000
    )
    return PoolView(
        id="p", name="p", machines=(machine,), holders=(HolderView(id="job-1", user="ann<b>", number=1),)
    )


@pytest.mark.parametrize("width", [20, 40, 60, 100, 200])
@pytest.mark.parametrize("coloured", [True, False])
def test_no_line_is_wider_than_the_terminal(width: int, coloured: bool) -> None:
    pool = big_pool(16, 9)
    rows = draw_rows(pool, width=width, coloured=coloured)
    for row in rows:
        assert len(row.name) + 2 + sum(len(cell.text) for cell in row.cells) <= width + 3
    drawn = "".join(cell.text for row in rows for cell in row.cells).replace(" ", "")
    if coloured and width >= 100:
        assert drawn == "▎·▌·▊·█·█▎█▌█▊██▎·" + "··" * 7
    assert drawn.count("·") >= 7


def shared_device(*milli: int, user: str = "user-{}") -> PoolView:
    device = DeviceView(
        device=Device(index=0, model="H100"),
        shares=tuple(ShareView(holder=at, milli=each, mechanism="mps") for at, each in enumerate(milli)),
    )
    holders = tuple(HolderView(id=f"job-{at}", user=user.format(at)) for at in range(len(milli)))
    machine = MachineView(id="m", name="m", devices=(device,), cpus_milli=1000)
    return PoolView(id="p", name="p", machines=(machine,), holders=holders)


@pytest.mark.parametrize(
    ("milli", "cells", "letters"),
    [
        ((500, 250, 250), [("█", 33, None), ("▌", 208, 35)], "a+"),
        ((250, 250, 250, 250), [("▌", 33, 208), ("▌", 35, 170)], "a+"),
        ((500, 125), [("█", 33, None), ("▎", 208, None)], "ab"),
        ((750,), [("█", 33, None), ("▌", 33, None)], "a·"),
        ((1000,), [("█", 33, None), ("█", 33, None)], "AA"),
        ((1,), [("▏", 33, None), ("·", None, None)], "a·"),
        ((10,) * 100, [("▏", 33, 208), ("▏", 245, 245)], "a+"),
    ],
)
def test_parts_of_a_device(
    milli: tuple[int, ...], cells: list[tuple[str, int | None, int | None]], letters: str
) -> None:
    pool = shared_device(*milli)
    (row,) = draw_rows(pool, width=80, coloured=True)
    assert [tuple(cell) for cell in row.cells if cell.text.strip()] == cells
    (row,) = draw_rows(pool, width=80, coloured=False)
    assert row.cells[0].text == letters


def many_machines(count: int) -> PoolView:
    machines = tuple(
        MachineView(
            id=f"n{at}",
            name=f"node-{at:02}",
            cpus_milli=64_000,
            devices=(
                DeviceView(device=Device(index=0, model="H100"), shares=(ShareView(holder=at, milli=1000),)),
            ),
        )
        for at in range(count)
    )
    holders = tuple(HolderView(id=f"job-{at}", user=f"user-{at:02}", number=at) for at in range(count))
    return PoolView(id="p", name="p", machines=machines, holders=holders)


def test_many_machines_stand_side_by_side(argosy: CommandLine, server: FakeServer) -> None:
    server.pools = (many_machines(20),)
    argosy.env["COLUMNS"] = "80"
    lines = argosy.good("pool", "map").splitlines()
    assert lines[1] == "node-00  AA  0/64 CPUs   node-10  KK  0/64 CPUs"
    assert lines[10] == "node-09  JJ  0/64 CPUs   node-19  TT  0/64 CPUs"
    assert max(map(len, lines)) <= 80
    argosy.env["COLUMNS"] = "40"
    assert argosy.good("pool", "map").splitlines()[1:3] == [
        "node-00  AA  0/64 CPUs",
        "node-01  BB  0/64 CPUs",
    ]


def test_who_has_no_colour_of_their_own_share_one() -> None:
    pool = many_machines(14)
    people = people_of(pool)
    told = [text for _, text in legend_of(people.values(), coloured=True)]
    assert told[-2:] == ["user-11 (1 GPU)", "2 others (2 GPUs)"] and len(told) == 13
    assert people["user-12"].shade == people["user-13"].shade != people["user-11"].shade
    assert len(legend_of(people.values(), coloured=False)) == 14


def test_drawings_are_sound_and_quote_what_people_write() -> None:
    pool = big_pool(20, 3)
    svg = render_svg([pool, POOL], now_ms=STARTED_MS)
    document = xml.dom.minidom.parseString(svg)
    assert len(document.getElementsByTagName("title")) > 30
    assert (
        "ann&lt;b&gt;" in svg
        and "ann<b>" not in svg
        and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    )
    assert "prefers-color-scheme: dark" in svg
    page = render_html([POOL], now_ms=STARTED_MS)
    assert page.startswith("<!doctype html>") and "<script" not in page and "src=" not in page
    assert "dgx: 1 waits" in page and "at most 2 are free together" in page
    assert "preemptible" in page and "by mps" in page


def test_drawings_are_written(argosy: CommandLine) -> None:
    done = argosy("pool", "map", "--html", "m.html", "--svg", "m.svg")
    assert (done.status, done.out, done.err) == (0, "", "written: m.html\nwritten: m.svg\n")
    assert (argosy.folder / "m.svg").read_text().startswith("<svg ")
    done = argosy("pool", "map", "--svg", "missing/m.svg")
    assert (done.status, done.err) == (
        2,
        "error: `missing/m.svg` cannot be written: No such file or directory\nhint: see `--help`\n",
    )


def test_what_is_wrong_with_machines_is_told(argosy: CommandLine, server: FakeServer) -> None:
    server.pools = (msgspec.structs.replace(POOL, warnings=("rack r1 of machine dgx-1 lies in block b2",)),)
    for words in (("pool",), ("pool", "map")):
        assert argosy(*words).err == "warning: rack r1 of machine dgx-1 lies in block b2\n"


def test_groups_and_presets(argosy: CommandLine, server: FakeServer) -> None:
    assert argosy.good("pool", "groups").startswith("No groups: ")
    assert argosy.good("pool", "presets").startswith("No presets. ")
    server.tenancy = Tenancy(
        groups=(Group(name="training", nodes=("dgx-*",), kinds=("job",)),),
        presets=(
            Preset(name="small", resources=Resources(accelerator=Accelerator(model="A100", milli=250))),
        ),
    )
    assert argosy.good("pool", "groups") == (
        "GROUP     NODES  NOW  GPUS  KINDS  QUEUES\ntraining  dgx-*    3    12  job    all\n"
    )
    assert argosy.good("pool", "presets") == "PRESET  RESOURCES\nsmall   A100:0.25\n"


# -- explain and queue ------------------------------------------------------------------------------


@pytest.fixture
def waiting(server: FakeServer) -> JobView:
    server.add_cluster("dev")
    server.next_log = FakeLog(held=True)
    job = server.add_job(Task(name="big", run="x"), "dev")
    server.jobs[job.id] = msgspec.structs.replace(
        job,
        status="queued",
        phase="queued",
        started_ms=0,
        position=2,
        starts_at_ms=STARTED_MS + 3_600_000 + 1_500_000,
        detail="4 A100 on one node: at most 2 are free together",
    )
    return server.jobs[job.id]


def test_queue_tells_place_and_start(argosy: CommandLine, waiting: JobView) -> None:
    assert argosy.good("queue", "dev") == (
        "ID  NAME  STATUS  RESOURCES  SUBMITTED  POSITION  STARTS  DETAIL\n"
        " 1  big   queued  default       1h ago         2    ~25m  4 A100 on one node: at most 2 are free "
        "together\n"
    )


EXPLAINED = """\
- 4 A100 on one node: at most 2 are free together
- it is number 1 for `dgx`
- it probably starts in 25m
- its queue `acme/vision/ann` uses 5 GPUs; 1 job runs, 1 waits

ATTEMPT  STATUS     PLACED  RAN  WHERE                                          WHY
      1  preempted  1h ago   1m  node 0 (gpu-7), GPUs 0 and 1; and 1 more node  it was first in the order; made room for acme/speech/bob's job 12
"""  # noqa: E501


def test_explain(argosy: CommandLine, server: FakeServer, waiting: JobView) -> None:
    assert argosy.good("explain", "dev", "1") == "job 1 of `dev`: queued\n" + EXPLAINED
    assert argosy.good("explain", waiting.id) == "job 1 of `dev`: queued\n" + EXPLAINED
    assert argosy.good("explain", "dev") == "cluster `dev`: running\n" + EXPLAINED
    reply = msgspec.json.decode(argosy.good("explain", "dev", "1", "--json"), type=ExplainReply)
    assert (reply.code, reply.position) == ("fragmented", 1)
    done = argosy("explain", "7")
    assert (done.status, done.err) == (
        4,
        "error: there is no job 7 among managed jobs\nhint: `argosy jobs queue` lists them\n",
    )
    assert argosy("explain").status == 2


# -- projects and flags -----------------------------------------------------------------------------


def test_projects_travel(argosy: CommandLine, server: FakeServer) -> None:
    argosy.good("launch", "-y", "-d", "-c", "dev", "--project", "vision", "--", "echo hi")
    argosy.good("exec", "-d", "dev", "--project", "speech", "--", "echo hi")
    argosy.good("jobs", "launch", "-y", "-d", "--project", "nlp", "--", "echo hi")
    kinds = {"launch": LaunchRequest, "exec": ExecRequest, "jobs_launch": JobsLaunchRequest}
    projects = [
        msgspec.json.decode(server.seen(name)[0].body, type=kind).project  # type: ignore[attr-defined]
        for name, kind in kinds.items()
    ]
    assert projects == ["vision", "speech", "nlp"]
    assert "x-argosy-project" not in server.requests[-1].headers
    argosy.env["ARGOSY_PROJECT"] = "vision"
    argosy.good("status")
    assert server.requests[-1].headers["x-argosy-project"] == "vision"
    argosy.env["ARGOSY_PROJECT"] = "no\r\nheader"
    done = argosy("status")
    assert done.status == 2 and done.err.startswith("error: ARGOSY_PROJECT cannot name a project: ")


def test_clusters_of_other_projects_are_written_with_them(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev", project="vision")
    server.add_cluster("own", project="default")
    names = [line.split()[0] for line in argosy.good("status").splitlines()[1:]]
    assert names == ["vision/dev", "own"]
    assert "vision/dev" in argosy.good("status", "dev")


def test_flags_of_sharing(argosy: CommandLine, server: FakeServer) -> None:
    (argosy.folder / "t.yaml").write_text("run: x\nscheduling: {preemptible: true, queue: a}\n")
    done = argosy(
        *("jobs", "launch", "-y", "-d", "t.yaml", "--queue", "acme/vision", "--preset", "small"),
        *("--priority", "7", "--priority-class", "interactive", "--max-duration", "90m"),
    )
    assert done.status == 0 and "`preemptible` without `checkpoint`" in done.err
    (task,) = msgspec.json.decode(server.seen("jobs_launch")[0].body, type=JobsLaunchRequest).tasks
    assert (task.scheduling.queue, task.scheduling.preemptible) == ("acme/vision", True)
    wish = task.resources[0]
    assert (wish.preset, wish.priority, wish.priority_class) == ("small", 7, "interactive")
    assert task.max_duration_s == 5400
    done = argosy("jobs", "launch", "--priority-class", "interactiv", "--", "x")
    assert (done.status, done.err) == (
        2,
        "--priority-class: `priority_class` must be one of `system`, `service`, `interactive`, `batch`, "
        "`opportunistic`, "
        "found the text `interactiv`\nhint: did you mean `interactive`?\n",
    )
