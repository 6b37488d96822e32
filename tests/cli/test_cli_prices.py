"""Prices on the command line: what people see, against a fake server. The figures themselves are
tests/server/test_pricing.py."""

from __future__ import annotations

import msgspec
import pytest
from command_line import CommandLine

from argosy.api.planning import PipelineReply, PipelineRequest, PlanReply, PlanRequest
from argosy.api.prices import CatalogAge, GpuList
from argosy.model.errors import ArgosyError
from argosy.model.offer import Plan, Rejection
from argosy.testing import priced_answers
from argosy.testing.fake_server import FakeServer

STALE = (
    "warning: prices of aws are 125 days old (2026-07-20); `argosy catalog refresh aws` gets present ones\n"
)

PLAN = """\
INFRA                      INSTANCE      CPUS  MEMORY  ACCELERATORS  KIND      $/H  TIME    TOTAL  CHOSEN
local                      this machine     8   32 GB                owned      $0    2h       $0  yes
aws/ca-central-1/cac1-az2  p4d.24xlarge    96  1.1 TB  A100:8        spot   ~$5.16    2h  ~$10.33  not in use
and 13 more offers fit (--top shows more)

local this machine (owned): $0/h; next is aws p4d.24xlarge (spot) at $5.16/h
"""
COMPARED = """
CAPACITY  PLACE                      MACHINE          $/H    TOTAL  LOSSES  SAVES
owned     local                      this machine      $0
spot      aws/ca-central-1/cac1-az2  p4d.24xlarge  ~$5.16  ~$10.33     0.5    77%
"""
REJECTED = """
Not considered:
  credentials  aws: no credentials
"""


@pytest.fixture
def task(argosy: CommandLine) -> str:
    (argosy.folder / "train.yaml").write_text("name: train\nrun: x\nestimated_hours: 2\ndeadline: 3h\n")
    return "train.yaml"


# -- plan and offers --------------------------------------------------------------------------------


def test_plan(argosy: CommandLine, server: FakeServer, task: str) -> None:
    done = argosy("plan", task)
    assert (done.status, done.out, done.err) == (0, PLAN + REJECTED, STALE)
    assert {request.endpoint for request in server.requests} == {"health", "plan"}


def test_plan_side_by_side(argosy: CommandLine, task: str) -> None:
    done = argosy("plan", task, "--compare", "--html", "plan.html")
    assert (done.status, done.out) == (0, PLAN + COMPARED + REJECTED)
    assert done.err == "written: plan.html\n" + STALE
    assert (argosy.folder / "plan.html").read_text() == "<!doctype html>\n<html></html>\n"


def test_a_page_that_cannot_be_written(argosy: CommandLine, task: str) -> None:
    done = argosy("plan", task, "--html", "missing/plan.html")
    assert (done.status, done.err) == (
        2,
        "error: `missing/plan.html` cannot be written: No such file or directory\nhint: see `--help`\n",
    )


def test_plan_of_what_only_clouds_have(argosy: CommandLine) -> None:
    done = argosy("plan", "--infra", "aws", "--", "x")
    assert done.status == 0
    assert "None of these is in use on this server: `argosy check --all` says what each needs.\n" in done.out
    assert "  yes\n" not in done.out


def test_plan_json_is_the_api_type(argosy: CommandLine, server: FakeServer) -> None:
    done = argosy("plan", "--json", "--top", "1", "--by", "carbon", "--", "x")
    reply = msgspec.json.decode(done.out, type=PlanReply)
    assert [offer.provider for offer in reply.offers] == ["local"] and done.err == ""
    request = msgspec.json.decode(server.seen("plan")[0].body, type=PlanRequest)
    assert (request.prices, request.limit, request.distinct) == (True, 1, True)
    assert request.task.objective == "carbon" and request.objective == ""


PIPELINE = """\
STAGE  INFRA             INSTANCE      NODES  ACCELERATORS  KIND          $/H  TIME     COST  EGRESS  LAUNCH
a      aws/ca-central-1  p4d.24xlarge      1  A100:8        on-demand  ~$5.16    2h  ~$10.33   $9.00  not in use
b      lambda/us-east-1  p4d.24xlarge      1  A100:8        on-demand  ~$5.16    1h   ~$5.16          not in use

DATA FROM  TO    SIZE  LEAVES            FOR               TRAFFIC
a          b   100 GB  aws/ca-central-1  lambda/us-east-1    $9.00

All 2 tasks: ~$24.49, $9.00 of it traffic, done in ~3h
  every stage is at its own cheapest place
"""  # noqa: E501


def test_plan_of_several_tasks(argosy: CommandLine, server: FakeServer) -> None:
    (argosy.folder / "two.yaml").write_text(
        "name: both\n---\nname: a\nestimated_hours: 2\noutputs: {s3://tokens: 100}\nrun: x\n---\nname: "
        "b\nrun: y\n"
    )
    done = argosy("plan", "two.yaml")
    assert (done.status, done.out) == (0, PIPELINE)
    assert done.err.endswith(STALE) and "outputs" not in done.err
    assert [request.endpoint for request in server.requests][-1] == "plan_pipeline"
    reply = msgspec.json.decode(argosy.good("plan", "two.yaml", "--json"), type=PipelineReply)
    assert [stage.name for stage in reply.stages] == ["a", "b"]
    assert argosy("plan", "two.yaml", "--html", "x.html").status == 2
    side = argosy.good("plan", "two.yaml", "--compare")
    assert side.startswith(PIPELINE + "\nTask 1 of 2 alone: a\n") and "CAPACITY" in side
    request = msgspec.json.decode(server.seen("plan_pipeline")[0].body, type=PipelineRequest)
    assert (len(request.tasks), request.edges, request.objective) == (2, ((0, 1),), "cost")


def test_tasks_that_run_at_once_have_no_edges(argosy: CommandLine, server: FakeServer) -> None:
    (argosy.folder / "group.yaml").write_text(
        "name: both\nexecution: parallel\n---\nname: a\nrun: x\n---\nname: b\nrun: y\n"
    )
    argosy.good("plan", "group.yaml", "--by", "time")
    request = msgspec.json.decode(server.seen("plan_pipeline")[0].body, type=PipelineRequest)
    assert (request.edges, request.objective) == ((), "time")


def test_plan_says_which_constraint_is_to_blame(argosy: CommandLine, server: FakeServer) -> None:
    text = "nothing fits `A100:8, 900 GB+`; without the memory of 900 GB+ it would run on aws/us-east-1 p4d ($5.16/h)"  # noqa: E501
    refused = Rejection(provider="aws", code="memory", text="has 680 GB of memory at most, asked for 900 GB")
    plan = Plan(num_nodes=1, rejected=(refused,))
    server.priced = lambda reply, request: PlanReply(plan=plan, text=text)
    done = argosy("plan", "--gpus", "A100:8", "--memory", "900+", "--", "x")
    assert (done.status, done.out) == (3, "")
    assert done.err == (
        f"error: {text}\n"
        "  aws  –  memory  has 680 GB of memory at most, asked for 900 GB\n"
        "hint: ask for less; `argosy launch --dryrun` and `argosy gpus` show what exists\n"
    )


def test_plan_passes_on_what_cannot_be(argosy: CommandLine, server: FakeServer, task: str) -> None:
    late = "the deadline of 3h cannot be met: the earliest finish of task `train` is in 4h, on aws for $20.66"
    server.failures["plan"] = [ArgosyError("no-offer", late, hint="set `deadline: 4.1h`")]
    done = argosy("plan", task)
    assert (done.status, done.err) == (3, f"error: {late}\nhint: set `deadline: 4.1h`\n")


def test_offers(argosy: CommandLine, task: str) -> None:
    done = argosy("offers", task)
    assert (done.status, done.err) == (0, STALE)
    assert done.out == (
        "INFRA                      INSTANCE      ACCELERATORS  CPUS  MEMORY  KIND      $/H  LOST/MONTH  "
        "DATE        SOURCE\n"
        "local                      this machine                   8   32 GB  owned      $0\n"
        "aws/ca-central-1/cac1-az2  p4d.24xlarge  A100:8          96  1.1 TB  spot   ~$5.16      5-10 %  "
        "2026-07-14  "
        "spot price history\n"
        "and 13 more offers fit (--top shows more)\n"
    )
    assert msgspec.json.decode(argosy.good("offers", task, "--json"), type=PlanReply).fitting == 15


# -- gpus and regions -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("gpus",), ("show-gpus",), ("gpus", "list")])
def test_gpus(argosy: CommandLine, words: tuple[str, ...]) -> None:
    done = argosy(*words)
    assert (done.status, done.err) == (0, STALE)
    assert done.out == (
        "ACCELERATOR  COUNT  MEMORY  INFRA  INSTANCE      CPUS    RAM  KIND   $/H\n"
        "A100             2   80 GB  local  this machine     8  32 GB  owned   $0\n"
        "\n"
        "ACCELERATOR  MEMORY  COUNTS  CLOUDS  $/H EACH  WHERE             SPOT EACH  SPOT WHERE\n"
        "A100          40 GB  1,8          2     $1.99  lambda/us-west-1     ~$0.65  aws/ca-central-1\n"
        "H100          80 GB  8            1\n"
    )


def test_gpus_of_a_model(argosy: CommandLine) -> None:
    assert argosy.good("gpus", "A100:8") == (
        "ACCELERATOR  COUNT  MEMORY  INFRA          INSTANCE      CPUS     RAM  KIND          $/H  SPOT "
        "$/H  SPOT IN       REGIONS\n"
        "A100             2   80 GB  local          this machine     8   32 GB  owned          $0\n"
        "A100             8   40 GB  aws/us-east-2  p4d.24xlarge    96  1.1 TB  on-demand  $21.96    "
        "~$5.16  ca-central-1        2\n"
        "A100: NVIDIA, 40 GB\n"
    )
    assert argosy.good("gpus", "A100", "--spot", "--cheapest") == (
        "ACCELERATOR  COUNT  MEMORY  INFRA             INSTANCE      CPUS     RAM  KIND     $/H  REGIONS\n"
        "A100             8   40 GB  aws/ca-central-1  p4d.24xlarge    96  1.1 TB  spot  ~$5.16        2\n"
        "A100: NVIDIA, 40 GB\n"
    )
    assert argosy.good("gpus", "A100", "--infra", "gcp") == (
        "Nobody offers A100 on gcp. See `argosy gpus` and `argosy check`.\n"
    )
    reply = msgspec.json.decode(argosy.good("gpus", "--all", "--json"), type=GpuList)
    assert (len(reply.offers), len(reply.gpus), len(reply.models)) == (1, 1, 0)


def test_a_gpu_that_does_not_exist(argosy: CommandLine) -> None:
    done = argosy("gpus", "H1OO")
    assert (done.status, done.err) == (
        3,
        "error: there is no accelerator `H1OO`\nhint: the nearest are `H100` (80 GB), `H200` (141 GB)\n",
    )


def test_regions(argosy: CommandLine, server: FakeServer) -> None:
    assert argosy.good("regions") == (
        "PROVIDER  REGION         WHERE       ZONES  OFFERS  ACCELERATORS\n"
        "aws       eu-west-1      Dublin, IE      2    1200  A100, T4\n"
        "aws       us-gov-west-1  US                      3\n"
    )
    argosy.good("regions", "aws", "--area", "eu", "--json")
    assert server.seen("regions")[-1].query == {"provider": "aws", "area": "eu"}
    assert argosy("regions", "mars").status == 3


# -- catalog ----------------------------------------------------------------------------------------


def test_catalog_show(argosy: CommandLine, server: FakeServer) -> None:
    server.notes = ("campus.csv:3: a price of 0 is left out",)
    done = argosy("catalog", "show")
    assert (done.status, done.err) == (0, "warning: campus.csv:3: a price of 0 is left out\n")
    assert done.out == (
        "PROVIDER  PRICES  FROM       NEWEST      OLDEST            AGE  UNDATED  REFRESH\n"
        "aws        25605  shipped    2026-07-20  2025-03-02    125 d !           yes\n"
        "vast         312  refreshed                          no date !       12  yes\n"
        "scp           40  private    2026-11-20  2026-11-20        1 d\n"
        "25,957 prices; your own folder is /fake/catalog\n"
        "! old: 2 of 3; `argosy catalog refresh PROVIDER` gets new ones\n"
    )


def test_catalog_refresh(argosy: CommandLine, server: FakeServer) -> None:
    assert (
        argosy.good("catalog", "refresh", "azure") == "azure: 120 prices (before: 100, 3 entries skipped)\n"
    )
    refused = ArgosyError("transient", "the new prices of aws are refused", hint="later")
    server.failures["catalog_refresh"] = [refused]
    done = argosy("catalog", "refresh")  # what fails does not stop the others
    assert (done.status, done.out) == (7, "vast: 120 prices (before: 100, 3 entries skipped)\n")
    assert done.err == "error: the new prices of aws are refused\nhint: later\n"
    server.failures["catalog_refresh"] = [refused]
    assert (
        argosy("catalog", "refresh", "aws").err == "error: the new prices of aws are refused\nhint: later\n"
    )


def test_catalog_refresh_of_all_leaves_out_what_has_no_key(
    argosy: CommandLine, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    verda = CatalogAge(
        provider="verda", offers=33, source="shipped", undated=33, stale=True, refreshable=True,
        needs=("VERDA_CLIENT_ID", "VERDA_CLIENT_SECRET"),
    )  # fmt: skip
    monkeypatch.setattr(priced_answers, "AGES", (priced_answers.AGES[0], verda))
    done = argosy("catalog", "refresh")
    assert (done.status, done.out) == (0, "aws: 120 prices (before: 100, 3 entries skipped)\n")
    assert done.err == "not asked: verda, the server has no VERDA_CLIENT_ID and no VERDA_CLIENT_SECRET\n"
    assert "needs VERDA_CLIENT_ID, VERDA_CLIENT_SECRET\n" in argosy.good("catalog", "show")


# -- money ------------------------------------------------------------------------------------------


def test_costs_in_groups(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    assert argosy.good("cost-report", "--by", "user", "--against", "aws") == (
        "USER  HELD   COST  SAVED ON SPOT  SAVED AGAINST AWS\n"
        "ada     1h  $1.20         ~$3.00            ~-$0.20\n"
        "Total: $1.20\n"
        "~$3.00 less than on demand at today's prices\n"
        "~$0.20 more than on aws at today's prices\n"
    )
    argosy.env["ARGOSY_DEFAULT_CLOUD"] = "gcp"
    argosy.good("cost-report", "--days", "3")
    assert server.seen("costs")[-1].query == {"days": "3", "against": "gcp"}


def test_budgets(argosy: CommandLine) -> None:
    assert argosy.good("budget", "list") == (
        "No project has a budget: `argosy budget set PROJECT USD` gives it one.\n"
    )
    table = (
        "PROJECT  MONTH     BUDGET   SPENT  USED  ALERT AT  HARD STOP\n"
        "default  2023-11  $500.00  $12.50   2 %      90 %  yes\n"
    )
    assert argosy.good("budget", "set", "default", "500", "--alert", "90", "--hard-stop") == table
    assert argosy.good("budget", "get", "default") == table
    assert argosy.good("budget", "list") == table
    done = argosy("budget", "get", "other")
    assert (done.status, done.err) == (
        4,
        "error: project `other` has no budget\nhint: `argosy budget set other USD` gives it one\n",
    )
    assert argosy.good("budget", "set", "default", "0") == "project `default` has no budget any more\n"
    assert argosy("budget", "set", "default", "-1").status == 2
