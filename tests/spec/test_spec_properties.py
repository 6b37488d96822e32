"""Whatever is written: a task or an ArgosyError. And a task is rendered so that it is read back."""

from __future__ import annotations

import string
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from argosy.model.errors import ArgosyError, render_error
from argosy.model.scheduling import LEVELS, PRIORITY_CLASSES
from argosy.spec import Overrides, parse_env_text, parse_task, render_task, task_from_mapping
from argosy.spec.accelerators import KNOWN
from argosy.spec.fields import TASK
from argosy.spec.fields_resources import RESOURCES
from argosy.spec.source import resolve_plain

FIELDS = [field.name for field in (*TASK.fields, *RESOURCES.fields)]
PIECES = [
    *FIELDS,
    ":",
    ": ",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    "\n- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "<<: ",
    "|",
    ">",
    "'",
    '"',
    "#",
    "\t",
    "---\n",
    "...\n",
    "!!set ",
    "!!str ",
    "? ",
    "null",
    "~",
    "true",
    "5",
    "-1",
    "1e9",
    ".nan",
    "A100:8",
    "80GB+",
    "$K",
    "${K}",
    "s3://b",
    "\\",
    "%",
    "@",
    "\u2028",
    "\x85",
    "\ufeff",
    "é",
    "\U0001f600",
    "\x00",
    "\ud800",
]


def survives(text: str) -> None:
    try:
        parsed = parse_task(text, env={"K": "v"})
    except ArgosyError as error:
        assert error.code in ("spec-invalid", "spec-unreadable")
        assert render_error(error).encode()
        return
    for task in parsed.tasks:
        rendered = render_task(task)
        again = parse_task(rendered).tasks[0]
        assert again == task or task.secrets


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_no_text_breaks_the_parser(text: str) -> None:
    survives(text)


@given(st.text(max_size=60))
def test_no_noise_breaks_the_parser(text: str) -> None:
    survives(text)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["A100:8", "4+", "10m", "8GB", "s3://b/x", "$K", "${K}", "/x", "auto", "local"])
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(FIELDS), TREES, max_size=4))
def test_no_values_break_the_parser(mapping: dict[str, Any]) -> None:
    try:
        parsed = task_from_mapping(mapping, env={"K": "v"})
    except ArgosyError as error:
        assert error.where == "Task(...)"
        return
    task = parsed.tasks[0]
    again = parse_task(render_task(task)).tasks[0]
    assert again == task or task.secrets


@given(st.dictionaries(st.sampled_from(Overrides.__struct_fields__), st.text(max_size=8), max_size=3))
def test_no_flag_breaks_the_parser(flags: dict[str, Any]) -> None:
    for name in ("envs", "secrets", "labels"):
        if name in flags:
            flags[name] = {flags[name]: flags[name]}
    try:
        task_from_mapping({"run": "x"}, overrides=Overrides(**flags))
    except ArgosyError as error:
        assert render_error(error)


SECRET = "Zq7-correct-horse"


@given(TREES.map(lambda tree: tree), st.sampled_from(["value", "key", "item", "tree"]))
def test_no_error_shows_a_secret(tree: Any, how: str) -> None:
    secrets: Any = {
        "value": {"A": SECRET, "B": tree},
        "key": {SECRET: tree},
        "item": [SECRET],
        "tree": [[SECRET], tree],
    }[how]
    try:
        parsed = task_from_mapping({"secrets": secrets, "run": "x", "workdir": "${A}"})
        shown = repr(parsed) + "".join(render_task(task) for task in parsed.tasks)
    except ArgosyError as error:
        shown = render_error(error)
    assert SECRET not in shown


# -------------------------------------------------------------------- tasks that are right, with all fields

WORDS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("\n\r\x85\u2028\t #:'\"$"),
    min_size=1,
    max_size=30,
)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True).filter(
    lambda name: not name.startswith(("ARGOSY_", "SKYPILOT_"))
)
AMOUNTS = st.integers(1, 4096)
WISHES = st.builds(
    lambda name, count: f"{name}:{count}",
    st.sampled_from([*KNOWN, "80GB+", "0.5TB+", "nvidia:16GB+", "Zephyr9"]),
    st.sampled_from(["1", "2", "8", "0.25", "0.333"]),
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
MAPPINGS = st.dictionaries(WORDS, PLAIN | st.lists(WORDS, max_size=2), min_size=1, max_size=3)

CANDIDATES = st.fixed_dictionaries(
    {},
    optional={
        "infra": st.sampled_from(["local", "aws/us-east-1", "k8s/a/b", "*/r", "aws/*/z"]),
        "cpus": st.builds(lambda n, plus: f"{n}{plus}", AMOUNTS, st.sampled_from(["", "+", ".5", ".125+"])),
        "memory": st.builds(
            lambda n, tail: f"{n}{tail}", AMOUNTS, st.sampled_from(["", "+", "x", "MB+", ".3"])
        ),
        "use_spot": st.booleans(),
        "instance_type": TEXTS,
        "disk_size": AMOUNTS | st.just("1536MB"),
        "disk_tier": st.sampled_from(["low", "best"]),
        "network_tier": st.just("best"),
        "local_disk": st.builds(
            lambda kind, n, tail: f"{kind}{n}{tail}",
            st.sampled_from(["", "nvme:", "ssd: "]),
            AMOUNTS,
            st.sampled_from(["", "+", ".5", "GiB", "TB+", "MB", "b+"]),
        )
        | st.sampled_from(["nvme", "SSD", 500]),
        "ports": st.lists(st.integers(1, 65535) | st.just("90-99"), min_size=1, max_size=3),
        "image_id": st.just("docker:x") | st.dictionaries(WORDS, TEXTS, min_size=1, max_size=2),
        "labels": st.dictionaries(WORDS, TEXTS, max_size=2),
        "accelerator_args": st.dictionaries(WORDS, TEXTS, max_size=2),
        "autostop": st.integers(-1, 100)
        | st.booleans()
        | st.just({"idle_minutes": "90s", "down": True, "hook": "x"}),
        "job_recovery": st.sampled_from(
            ["FAILOVER", {"max_restarts_on_errors": 2, "recover_on_exit_codes": [1, 2]}]
        ),
        "priority": st.integers(-1000, 1000),
        "priority_class": st.sampled_from(PRIORITY_CLASSES),
        "preset": WORDS,
        "max_hourly_cost": st.sampled_from([1, 2.5, "$0.000001", "98.5/h"]),
        "location": TEXTS,
        "edge_config": MAPPINGS
        | st.fixed_dictionaries(
            {},
            optional={
                "bandwidth_limit": st.sampled_from(["50Mbps", "1.5gbps", "64 kbps"]),
                "latency_requirements": st.sampled_from(["<50ms", "0.5ms", "1s"]),
                "power_constraints": st.sampled_from(["300W", "7.5w", "1kW"]),
            },
        ),
        "regions": st.lists(WORDS, max_size=2),
        "not": WORDS
        | st.lists(st.fixed_dictionaries({}, optional={"infra": WORDS, "accelerators": WORDS}), max_size=2),
    },
)
RESOURCE_SETS = st.one_of(
    st.builds(
        lambda one, wish: {**one, "accelerators": wish},
        CANDIDATES,
        WISHES | st.lists(WISHES, min_size=1, max_size=3),
    ),
    st.builds(
        lambda one, key, many: {**one, key: many},
        CANDIDATES,
        st.sampled_from(["any_of", "ordered"]),
        st.lists(CANDIDATES, min_size=1, max_size=3),
    ),
)
SCHEDULINGS = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.sampled_from(["a", "/a/b.c/", "team/ann@lab"]),
        "group": WORDS,
        "preemptible": st.booleans(),
        "checkpoint": st.booleans(),
        "topology": st.fixed_dictionaries(
            {}, optional={"required": st.sampled_from(LEVELS), "preferred": st.sampled_from(LEVELS)}
        ),
        "spread": st.sampled_from(LEVELS),
        "isolation": st.sampled_from(["none", "memory", "HARDWARE"]),
        "share": st.sampled_from(["own", "any"]),
        "labels": st.dictionaries(WORDS, TEXTS, max_size=2),
        "tolerations": st.lists(TEXTS, max_size=2),
    },
)
TASKS = st.fixed_dictionaries(
    {"run": TEXTS},
    optional={
        "name": WORDS,
        "workdir": TEXTS.filter(lambda text: text.strip() != "") | st.just({"url": "https://x", "ref": "1"}),
        "setup": TEXTS,
        "num_nodes": st.integers(1, 100),
        "envs": st.dictionaries(NAMES, TEXTS | st.just(""), max_size=3),
        "resources": RESOURCE_SETS,
        "file_mounts": st.dictionaries(
            WORDS.map(lambda word: "/" + word),
            st.sampled_from(
                ["./x", "s3://b", {"name": "b", "mode": "COPY"}, {"source": ["a", "b"], "persistent": False}]
            ),
            max_size=3,
        ),
        "max_duration": st.integers(1, 10**6).map(lambda n: f"{n}s"),
        "grace": st.integers(0, 1000),
        "config": st.just({"docker": {"run_options": ["--x"]}})
        | st.builds(lambda m: {"kubernetes": m}, MAPPINGS),
        "service": st.just({"replicas": 2, "readiness_probe": "/"}),
        "volumes": st.just({"/v": {"size": 5}}),
        "event_callback": TEXTS,
        "scheduling": SCHEDULINGS,
        "estimated_hours": st.floats(0.0001, 80_000) | st.just("90m"),
        "progress": st.integers(0, 1000).map(lambda milli: f"{milli / 10}%") | st.just("0.5"),
        "objective": st.sampled_from(["cost", "time", "carbon"]),
        "deadline": st.integers(1, 10**6).map(lambda n: f"{n}s") | st.just("2030-01-31 18:00"),
    },
)


@given(TASKS)
def test_a_task_is_rendered_and_read_back(mapping: dict[str, Any]) -> None:
    try:
        task = task_from_mapping(mapping).tasks[0]
    except ArgosyError as error:
        # Two candidates of `ordered` lists inside `any_of` is the one refusal that these strategies can
        # reach.
        assert "has no order" in error.what, render_error(error)
        return
    rendered = render_task(task)
    again = parse_task(rendered).tasks[0]
    # A field that every candidate replaces was told of, and is not there to be told of again.
    assert set(again.not_executed) <= set(task.not_executed)
    assert replace(again, not_executed=task.not_executed) == task
    assert render_task(again) == rendered


@given(st.text("0123456789+-_.eExXbBnNaAiIfFyYsStTrRuUoOlL~", max_size=8))
def test_plain_scalars_agree_with_yaml(text: str) -> None:
    """What we take for a number or boolean, PyYAML does too: so its dumper quotes it."""
    value = resolve_plain(text)
    if isinstance(value, str) or value is None:
        return
    theirs = yaml.safe_load(text)
    assert type(theirs) is type(value) and (theirs == value or value != value)


@given(st.text(max_size=60))
def test_no_env_file_breaks_the_parser(text: str) -> None:
    try:
        parse_env_text(text, source=".env")
    except ArgosyError as error:
        assert error.where.startswith(".env:")
