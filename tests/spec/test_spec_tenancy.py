"""The file of queues, groups, presets and policy; and amounts on flags."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.model.errors import ArgosyError, render_error
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.tenancy import Group, Preset, Queue, Resting, SharePolicy, Tenancy
from argosy.model.units import Bound
from argosy.spec.tenancy import parse_amounts, parse_tenancy, render_amount, render_tenancy

GIB = 1 << 30
FULL = """\
queues:
  acme:
    limit: {gpus: 32, gpus/a100: 16, cpus: 64, memory: 512GB, jobs: 20}
  acme/vision:
    guaranteed: {gpus: 8}
    deserved: {gpus: 16.5}
    lend_limit: {gpus: 4}
    weight: 2.5
    max_pending: 100
    over_limit: refuse
    sessions: {idle: never, then: end}
  acme/speech:
groups:
  training: {nodes: [gpu-*, clu-1], kinds: job, queues: [acme/vision]}
presets:
  small: {cpus: 2, memory: 8, accelerators: "A100:0.25", infra: local}
policy: {backfill: conservative, min_runtime: 90s, half_life: 3d, preemption: false}
sessions: {idle: 2h, gpu_idle: 30m, max_time: never, firm: true}
"""
MEANT = Tenancy(
    queues=(
        Queue(
            path="acme",
            limit={"gpus": 32_000, "gpus/A100": 16_000, "cpus": 64_000, "memory": 512 * GIB, "jobs": 20},
        ),
        Queue(
            path="acme/vision",
            guaranteed={"gpus": 8000},
            deserved={"gpus": 16_500},
            lend_limit={"gpus": 4000},
            weight_milli=2500,
            max_pending=100,
            refuse_over_limit=True,
            sessions=Resting(idle_s=0, then="end"),
        ),
        Queue(path="acme/speech"),
    ),
    groups=(Group(name="training", nodes=("gpu-*", "clu-1"), kinds=("job",), queues=("acme/vision",)),),
    presets=(
        Preset(
            name="small",
            resources=Resources(
                infra=Infra(provider="local"),
                cpus=Bound(2000, exact=True),
                memory=Bound(8 * GIB, exact=True),
                accelerator=Accelerator(model="A100", milli=250),
            ),
        ),
    ),
    policy=SharePolicy(backfill="conservative", min_runtime_s=90, half_life_s=3 * 86_400, preemption=False),
    sessions=Resting(idle_s=7200, gpu_idle_s=1800, max_s=0, firm=True),
)


def test_a_file_becomes_what_it_says() -> None:
    assert parse_tenancy(FULL).tenancy == MEANT


def test_an_empty_file_is_the_open_tree() -> None:
    for text in ("", "# nothing\n", "queues:\n", "{}"):
        assert parse_tenancy(text).tenancy == Tenancy()
    assert render_tenancy(Tenancy()) == ""


def refused(text: str) -> str:
    with pytest.raises(ArgosyError) as caught:
        parse_tenancy(text, source="q.yaml")
    return render_error(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "queues:\n  acme:\n    limit: {gpu: 8}\n",
            "q.yaml:3:13: a key of `queues.acme.limit`: `gpu` is not counted\nhint: did you mean `gpus`?",
        ),
        (
            "queues:\n  acme:\n    limit: {gpus: eight}\n",
            "q.yaml:3:13: `limit.gpus`: `eight` is no number of GPUs\nhint: write for example `gpus: 8`",
        ),
        (
            "queues:\n  acme:\n    limit: {memory: 5 potatoes}\n",
            "q.yaml:3:13: `limit.memory`: `5 potatoes` is not a size\n"
            "hint: write for example `8`, `512MB` or `1.5TB`",
        ),
        (
            "queues:\n  acme:\n    limit: {jobs: 2.5}\n",
            "q.yaml:3:13: `limit.jobs`: `2.5` is no number of jobs\nhint: write for example `jobs: 20`",
        ),
        (
            "queues:\n  acme:\n    limit: {cpus/A100: 2}\n",
            "q.yaml:3:13: a key of `queues.acme.limit`: `cpus/A100` is not counted\n"
            "hint: only GPUs are counted by model, as `gpus/A100`",
        ),
        (
            "queues:\n  acme:\n    wieght: 2\n",
            "q.yaml:3:5: unknown field `wieght` in queues\nhint: did you mean `weight`?",
        ),
        (
            "queues:\n  acme:\n    weight: 0\n",
            "q.yaml:3:5: `weight` must be above 0\nhint: 1 is what everybody has",
        ),
        (
            "queues:\n  acme/: {}\n  acme: {}\n",
            "q.yaml:3:3: `acme` is given twice in `queues`\nhint: keep one of the two",
        ),
        (
            "queues:\n  a//b: {}\n",
            "q.yaml:2:3: a key of `queues`: `a//b` is no path of a queue\n"
            "hint: names of letters, digits, `-`, `_`, `.` and `@`, with `/` between them: `acme/vision`",
        ),
        (
            "groups:\n  training: {kinds: [job]}\n",
            "q.yaml:2:3: the group `training` has no nodes\nhint: add `nodes: [gpu-*]`",
        ),
        (
            "groups:\n  training: {nodes: [x], kinds: [jobs]}\n",
            "q.yaml:2:26: `jobs` is no kind of workload\nhint: did you mean `job`?",
        ),
        (
            "presets:\n  small: {accelerators: {A100: 1, L4: 1}}\n",
            "q.yaml:2:11: a preset is one wish, these are several\nhint: make a preset of each",
        ),
        (
            "presets:\n  small: {preset: tiny}\n",
            "q.yaml:2:11: a preset cannot name another\nhint: write out its resources",
        ),
        (
            "sessions: {idle: 30}\n",
            "q.yaml:1:18: `sessions.idle`: `30` needs a unit\nhint: write for example `30h` or `90m`",
        ),
        (
            "policy: {backfill: aggressive}\n",
            "q.yaml:1:20: `policy.backfill` must be one of `easy`, `conservative`, `none`, found the text "
            "`aggressive`\n"
            "hint: `argosy quota export` writes such a file; docs/pool.md explains every field",
        ),
        (
            "- acme\n",
            "q.yaml:1:1: a file of quotas is a mapping with `queues`, `groups`, `presets`, `policy` and "
            "`sessions`\n"
            "hint: `argosy quota export` shows the present one",
        ),
        (
            "queues: {a: {}}\n---\nqueues: {b: {}}\n",
            "q.yaml: there are 2 documents in it\nhint: write queues, groups, presets and policy in one",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, told: str) -> None:
    assert refused(text) == told


def test_every_error_is_told_at_once() -> None:
    told = refused("queues:\n  a: {limit: {gpus: x}}\n  b: {weight: -1}\n  c: {limit: {cpu: 1}}\npolcy: {}\n")
    assert told.startswith("q.yaml:2:")
    assert sum("q.yaml:" in line for line in told.splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("gpus=8", {"gpus": 8000}),
        ("gpus=0.5,gpus/h100=4,memory=512GB", {"gpus": 500, "gpus/H100": 4000, "memory": 512 * GIB}),
        ("jobs=0,cpus=64,memory=0", {"jobs": 0, "cpus": 64_000, "memory": 0}),
        ("gpus=none", {"gpus": None}),
    ],
)
def test_amounts_of_flags(text: str, amounts: dict[str, int | None]) -> None:
    assert parse_amounts(text, flag="--limit") == amounts


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("8", "--limit: `8` is no amount\nhint: write for example `gpus=8`"),
        ("gpus=8=9", "--limit: `8=9` is no number of GPUs\nhint: write for example `gpus=8`"),
        ("gpus=-1", "--limit: `-1` is no number of GPUs\nhint: write for example `gpus=8`"),
        ("gpus=nan", "--limit: `nan` is no number of GPUs\nhint: write for example `gpus=8`"),
        ("gpus=99999999", "--limit: `99999999` is more than exists\nhint: see `--help`"),
        ("gpus=1,gpus=2", "--limit: `gpus` is given twice\nhint: keep one of the two"),
        ("disk=8", "--limit: `disk` is not counted\nhint: counted are `cpus`, `memory`, `gpus`, `jobs` and "
                   "`gpus/A100`"),
        ("job=8", "--limit: `job` is not counted\nhint: did you mean `jobs`?"),
        ("", "--limit: `` is no amount\nhint: write for example `gpus=8`"),
    ],
)  # fmt: skip
def test_amounts_that_cannot_be_read(text: str, told: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        parse_amounts(text, flag="--limit")
    assert render_error(caught.value) == told


# -- there and back ---------------------------------------------------------------------------------

NAMES = st.text(string.ascii_letters + string.digits + "@._-", min_size=1, max_size=6).filter(
    lambda name: name[0].isalnum()
)
COUNTED = st.dictionaries(
    st.sampled_from(["cpus", "gpus", "gpus/A100", "gpus/H100-SXM"]), st.integers(0, 10**9), max_size=3
)


def amounts() -> st.SearchStrategy[dict[str, int]]:
    more = st.fixed_dictionaries(
        {}, optional={"memory": st.integers(0, 1 << 50), "jobs": st.integers(0, 10**9 - 1)}
    )
    return st.builds(lambda a, b: {**a, **b}, COUNTED, more)


QUEUES = st.builds(
    Queue,
    path=st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    guaranteed=amounts(),
    deserved=amounts(),
    limit=amounts(),
    lend_limit=amounts(),
    weight_milli=st.integers(1, 10**6),
    max_pending=st.none() | st.integers(0, 1000),
    refuse_over_limit=st.booleans(),
)
TENANCIES = st.builds(
    Tenancy,
    queues=st.lists(QUEUES, max_size=3, unique_by=lambda queue: queue.path).map(tuple),
    groups=st.lists(
        st.builds(
            Group,
            name=NAMES,
            nodes=st.lists(NAMES | st.just("gpu-*"), min_size=1, max_size=2).map(tuple),
            kinds=st.lists(st.sampled_from(["job", "session"]), max_size=2).map(tuple),
            queues=st.lists(NAMES, max_size=2).map(tuple),
        ),
        max_size=2,
        unique_by=lambda group: group.name,
    ).map(tuple),
    policy=st.builds(
        SharePolicy,
        preemption=st.booleans(),
        backfill=st.sampled_from(["easy", "none"]),
        min_runtime_s=st.integers(0, 10**6),
        aging_s=st.integers(0, 10**6),
    ),
)


@given(TENANCIES)
def test_what_is_rendered_is_read_back(tenancy: Tenancy) -> None:
    text = render_tenancy(tenancy)
    assert parse_tenancy(text).tenancy == tenancy
    assert render_tenancy(parse_tenancy(text).tenancy) == text


@given(amounts())
def test_amounts_are_read_back(some: dict[str, Any]) -> None:
    if some:
        text = ",".join(f"{name}={render_amount(name, amount)}" for name, amount in some.items())
        assert parse_amounts(text, flag="--limit") == some


def test_the_full_file_is_read_back() -> None:
    assert parse_tenancy(render_tenancy(MEANT)).tenancy == MEANT
