"""The fields of `scheduling:`: how a task shares a pool with others; and of the file that says who shares
what."""

from __future__ import annotations

import re
from typing import Final

from argosy.model.errors import suggest
from argosy.model.scheduling import LEVELS, Isolation
from argosy.spec import values
from argosy.spec.accelerators import parse_accelerator_name
from argosy.spec.fields_resources import CANDIDATE
from argosy.spec.findings import excerpt
from argosy.spec.leaves import LABEL_KEY, SECONDS, TEXTS
from argosy.spec.notation import parse_span
from argosy.spec.shapes import AsText, Choice, Field, Flag, MapOf, Notation, Number, Table, Text, Then, Whole

_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,62}")
COUNTED: Final = ("cpus", "memory", "gpus", "jobs")


def parse_queue_path(text: str) -> str:
    """The path of a queue, without slashes around it. ValueError says what is wrong.

    >>> parse_queue_path("acme/vision/")
    'acme/vision'
    """
    path = text.strip().strip("/")
    if not path or not all(_PART.fullmatch(part) for part in path.split("/")):
        raise ValueError(
            f"`{excerpt(text)}` is no path of a queue; names of letters, digits, `-`, `_`, `.` and `@`, "
            "with `/` "
            "between them: `acme/vision`"
        )
    return path


def parse_plain_name(text: str) -> str:
    if not _PART.fullmatch(text.strip()):
        raise ValueError(f"`{excerpt(text)}` is no name; use letters, digits, `-`, `_` and `.`")
    return text.strip()


def parse_rest_time(text: str) -> int:
    """Seconds; 0 is never.

    >>> parse_rest_time("2h"), parse_rest_time("never")
    (7200, 0)
    """
    return 0 if text.strip() == "never" else parse_span(text)


def parse_amount_name(text: str) -> str:
    """What is counted: cpus, memory, gpus, gpus/MODEL or jobs. ValueError says what was probably meant.

    >>> parse_amount_name("gpus/a100")
    'gpus/A100'
    """
    name, slash, model = text.strip().partition("/")
    if name not in COUNTED:
        listed = ", ".join(f"`{one}`" for one in COUNTED)
        hint = suggest(name, COUNTED, otherwise=f"counted are {listed} and `gpus/A100`")
        raise ValueError(f"`{excerpt(text)}` is not counted; {hint}")
    if not slash:
        return name
    if name != "gpus":
        raise ValueError(f"`{excerpt(text)}` is not counted; only GPUs are counted by model, as `gpus/A100`")
    return f"gpus/{parse_accelerator_name(model)}"


SCHEDULING: Final = Table(
    "scheduling",
    (
        Field(
            "queue",
            Text("the path of a queue such as `acme/vision`", parse_queue_path),
            "Queue whose quota it counts in. Without it: the user's own in the project.",
            "acme/vision",
        ),
        Field(
            "group",
            Text("the name of a group of nodes", parse_plain_name),
            "Only nodes of this group (`argosy pool groups`).",
            "training",
            also=("node_group", "partition", "nodes"),
        ),
        Field(
            "preemptible",
            Flag(),
            "May be ended and started again to make room for others; such jobs also use what queues lend.",
            "true",
        ),
        Field(
            "checkpoint",
            Flag(),
            "When it is started again, it goes on from `ARGOSY_CHECKPOINT_DIR`.",
            "true",
            also=("checkpoints", "checkpointing", "resumable"),
        ),
        Field(
            "topology",
            Table(
                "scheduling.topology",
                (
                    Field(
                        "required",
                        Choice(LEVELS),
                        "All ranks in one node, leaf switch, rack or block, or the job waits.",
                        "rack",
                    ),
                    Field("preferred", Choice(LEVELS), "The same as a wish.", "leaf"),
                ),
            ),
            "How near to each other the ranks must be.",
            "{required: rack, preferred: leaf}",
        ),
        Field(
            "spread",
            Choice(LEVELS),
            "Ranks in different nodes, leafs, racks or blocks. Without it they are packed.",
            "rack",
        ),
        Field(
            "isolation",
            Choice(tuple(level.value for level in Isolation)),
            "What keeps it apart from others on one accelerator: `memory` (MPS) or `hardware` (MIG or "
            "a whole device).",
            "memory",
        ),
        Field(
            "share",
            Choice(("own", "any")),
            "With whom a part of an accelerator is shared: the same tenant, or everybody who says `any`.",
            "any",
        ),
        Field(
            "labels",
            Then(MapOf(LABEL_KEY, AsText("a text"), "a mapping of texts"), values.make_text_pairs),
            "Labels that nodes must have.",
            "{disk: nvme}",
            also=("node_labels", "node_selector", "constraints"),
        ),
        Field(
            "tolerations",
            TEXTS,
            "Taints of nodes that do not matter.",
            "[maintenance]",
            also=("tolerate", "taints"),
        ),
    ),
)

_AMOUNTS: Final = MapOf(
    Notation("one of `cpus`, `memory`, `gpus`, `gpus/MODEL`, `jobs`", parse_amount_name),
    AsText("an amount"),
    "a mapping from what is counted to an amount",
)

SESSIONS: Final = Table(
    "sessions",
    (
        Field(
            "idle",
            Notation("a time such as `2h`, or `never`", parse_rest_time),
            "A session rests when nobody used it for so long.",
            "2h",
        ),
        Field(
            "gpu_idle",
            Notation("a time such as `30m`, or `never`", parse_rest_time),
            "A session rests when its GPUs did nothing for so long, though somebody types.",
            "30m",
        ),
        Field(
            "max_time",
            Notation("a time such as `24h`, or `never`", parse_rest_time),
            "A session rests so long after its start, whatever happens.",
            "24h",
        ),
        Field("then", Choice(("rest", "end")), "What becomes of it: `rest` keeps its state.", "rest"),
        Field("firm", Flag(), "Sessions and queues below may be given less time, but not more.", "true"),
    ),
)

QUEUE: Final = Table(
    "queues",
    (
        Field("guaranteed", _AMOUNTS, "Never lent, never taken away.", "{gpus: 8}"),
        Field(
            "deserved",
            _AMOUNTS,
            "Lent while unused, taken back when wanted; at least what is guaranteed.",
            "{gpus: 16}",
            also=("quota", "share"),
        ),
        Field(
            "limit",
            _AMOUNTS,
            "Never more than this; what is not named has no limit.",
            "{gpus: 32, gpus/A100: 16, memory: 512GB, jobs: 20}",
            also=("limits", "max"),
        ),
        Field(
            "lend_limit",
            _AMOUNTS,
            "At most so much of `deserved` is lent; what is not named is lent whole.",
            "{gpus: 4}",
            also=("lending_limit",),
        ),
        Field(
            "weight",
            Number(says="a number above 0"),
            "Its part of what is free beyond what everybody deserves.",
            "2",
        ),
        Field(
            "max_pending",
            Whole(minimum=0, says="a whole number"),
            "So many jobs may wait; more are refused.",
            "100",
            also=("max_waiting",),
        ),
        Field(
            "over_limit",
            Choice(("wait", "refuse")),
            "What becomes of a job that passes the limit when it comes, with all that runs and waits.",
            "refuse",
        ),
        Field("sessions", SESSIONS, "When sessions in it and below it rest that nobody uses.", "{idle: 1h}"),
    ),
)

GROUP: Final = Table(
    "groups",
    (
        Field("nodes", TEXTS, "Patterns of node ids, hostnames or names of clusters.", "[gpu-*]"),
        Field(
            "kinds",
            TEXTS,
            "Kinds of workloads that may use it: job, cluster, session, service. Without it: all.",
            "[job]",
        ),
        Field(
            "queues",
            TEXTS,
            "Queues that may use it, with those below them. Without it: all.",
            "[acme/vision]",
        ),
    ),
)

POLICY: Final = Table(
    "policy",
    (
        Field("preemption", Flag(), "Preemptible jobs may be ended.", "true"),
        Field("consolidation", Flag(), "Preemptible jobs may be moved.", "false"),
        Field(
            "backfill",
            Choice(("easy", "conservative", "none")),
            "Whether later jobs may start before earlier ones that they do not delay: only the first "
            "one, or none of them.",
            "easy",
        ),
        Field(
            "attained_service",
            Flag(),
            "Jobs that have used less go first, among checkpointing ones of one queue.",
            "false",
        ),
        Field("min_runtime", SECONDS, "Nothing younger is ended.", "10m"),
        Field("aging", SECONDS, "After so long a job rises by one priority class.", "1d"),
        Field("half_life", SECONDS, "Half-life of past usage, as it counts in the order.", "7d"),
    ),
)

TENANCY: Final = Table(
    "tenancy",
    (
        Field(
            "queues",
            MapOf(
                Notation("the path of a queue", parse_queue_path),
                QUEUE,
                "a mapping from path to queue",
                null_will_do=True,
            ),
            "The tree of tenants: a path for each queue.",
            "{acme: {limit: {gpus: 32}}, acme/vision: {deserved: {gpus: 16}}}",
            also=("queue", "quotas"),
        ),
        Field(
            "groups",
            MapOf(Notation("a name", parse_plain_name), GROUP, "a mapping from name to group"),
            "Groups of nodes for a purpose.",
            "{training: {nodes: [gpu-*]}}",
            also=("group",),
        ),
        Field(
            "presets",
            MapOf(Notation("a name", parse_plain_name), CANDIDATE, "a mapping from name to resources"),
            "Resources by name, for `preset: NAME`.",
            "{small: {cpus: 2, memory: 8, accelerators: A100:0.25}}",
            also=("preset",),
        ),
        Field("policy", POLICY, "How the pool scheduler behaves.", "{backfill: easy, min_runtime: 10m}"),
        Field(
            "sessions",
            SESSIONS,
            "When sessions that nobody uses rest, where neither they nor their queue say it.",
            "{idle: 2h, gpu_idle: 30m}",
        ),
    ),
)
