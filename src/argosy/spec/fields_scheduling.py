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
    name="scheduling",
    fields=(
        Field(
            name="queue",
            shape=Text(says="the path of a queue such as `acme/vision`", check=parse_queue_path),
            doc="Queue whose quota it counts in. Without it: the user's own in the project.",
            example="acme/vision",
        ),
        Field(
            name="group",
            shape=Text(says="the name of a group of nodes", check=parse_plain_name),
            doc="Only nodes of this group (`argosy pool groups`).",
            example="training",
            also=("node_group", "partition", "nodes"),
        ),
        Field(
            name="preemptible",
            shape=Flag(),
            doc="May be ended and started again to make room for others; such jobs also use what queues "
            "lend.",
            example="true",
        ),
        Field(
            name="checkpoint",
            shape=Flag(),
            doc="When it is started again, it goes on from `ARGOSY_CHECKPOINT_DIR`.",
            example="true",
            also=("checkpoints", "checkpointing", "resumable"),
        ),
        Field(
            name="topology",
            shape=Table(
                name="scheduling.topology",
                fields=(
                    Field(
                        name="required",
                        shape=Choice(words=LEVELS),
                        doc="All ranks in one node, leaf switch, rack or block, or the job waits.",
                        example="rack",
                    ),
                    Field(
                        name="preferred",
                        shape=Choice(words=LEVELS),
                        doc="The same as a wish.",
                        example="leaf",
                    ),
                ),
            ),
            doc="How near to each other the ranks must be.",
            example="{required: rack, preferred: leaf}",
        ),
        Field(
            name="spread",
            shape=Choice(words=LEVELS),
            doc="Ranks in different nodes, leafs, racks or blocks. Without it they are packed.",
            example="rack",
        ),
        Field(
            name="isolation",
            shape=Choice(words=tuple(level.value for level in Isolation)),
            doc="What keeps it apart from others on one accelerator: `memory` (MPS) or `hardware` (MIG or "
            "a whole device).",
            example="memory",
        ),
        Field(
            name="share",
            shape=Choice(words=("own", "any")),
            doc="With whom a part of an accelerator is shared: the same tenant, or everybody who says `any`.",
            example="any",
        ),
        Field(
            name="labels",
            shape=Then(
                shape=MapOf(key=LABEL_KEY, value=AsText(says="a text"), says="a mapping of texts"),
                make=values.make_text_pairs,
            ),
            doc="Labels that nodes must have.",
            example="{disk: nvme}",
            also=("node_labels", "node_selector", "constraints"),
        ),
        Field(
            name="tolerations",
            shape=TEXTS,
            doc="Taints of nodes that do not matter.",
            example="[maintenance]",
            also=("tolerate", "taints"),
        ),
    ),
)

_AMOUNTS: Final = MapOf(
    key=Notation(says="one of `cpus`, `memory`, `gpus`, `gpus/MODEL`, `jobs`", parse=parse_amount_name),
    value=AsText(says="an amount"),
    says="a mapping from what is counted to an amount",
)

SESSIONS: Final = Table(
    name="sessions",
    fields=(
        Field(
            name="idle",
            shape=Notation(says="a time such as `2h`, or `never`", parse=parse_rest_time),
            doc="A session rests when nobody used it for so long.",
            example="2h",
        ),
        Field(
            name="gpu_idle",
            shape=Notation(says="a time such as `30m`, or `never`", parse=parse_rest_time),
            doc="A session rests when its GPUs did nothing for so long, though somebody types.",
            example="30m",
        ),
        Field(
            name="max_time",
            shape=Notation(says="a time such as `24h`, or `never`", parse=parse_rest_time),
            doc="A session rests so long after its start, whatever happens.",
            example="24h",
        ),
        Field(
            name="then",
            shape=Choice(words=("rest", "end")),
            doc="What becomes of it: `rest` keeps its state.",
            example="rest",
        ),
        Field(
            name="firm",
            shape=Flag(),
            doc="Sessions and queues below may be given less time, but not more.",
            example="true",
        ),
    ),
)

QUEUE: Final = Table(
    name="queues",
    fields=(
        Field(name="guaranteed", shape=_AMOUNTS, doc="Never lent, never taken away.", example="{gpus: 8}"),
        Field(
            name="deserved",
            shape=_AMOUNTS,
            doc="Lent while unused, taken back when wanted; at least what is guaranteed.",
            example="{gpus: 16}",
            also=("quota", "share"),
        ),
        Field(
            name="limit",
            shape=_AMOUNTS,
            doc="Never more than this; what is not named has no limit.",
            example="{gpus: 32, gpus/A100: 16, memory: 512GB, jobs: 20}",
            also=("limits", "max"),
        ),
        Field(
            name="lend_limit",
            shape=_AMOUNTS,
            doc="At most so much of `deserved` is lent; what is not named is lent whole.",
            example="{gpus: 4}",
            also=("lending_limit",),
        ),
        Field(
            name="weight",
            shape=Number(says="a number above 0"),
            doc="Its part of what is free beyond what everybody deserves.",
            example="2",
        ),
        Field(
            name="max_pending",
            shape=Whole(minimum=0, says="a whole number"),
            doc="So many jobs may wait; more are refused.",
            example="100",
            also=("max_waiting",),
        ),
        Field(
            name="over_limit",
            shape=Choice(words=("wait", "refuse")),
            doc="What becomes of a job that passes the limit when it comes, with all that runs and waits.",
            example="refuse",
        ),
        Field(
            name="sessions",
            shape=SESSIONS,
            doc="When sessions in it and below it rest that nobody uses.",
            example="{idle: 1h}",
        ),
    ),
)

GROUP: Final = Table(
    name="groups",
    fields=(
        Field(
            name="nodes",
            shape=TEXTS,
            doc="Patterns of node ids, hostnames or names of clusters.",
            example="[gpu-*]",
        ),
        Field(
            name="kinds",
            shape=TEXTS,
            doc="Kinds of workloads that may use it: job, cluster, session, service. Without it: all.",
            example="[job]",
        ),
        Field(
            name="queues",
            shape=TEXTS,
            doc="Queues that may use it, with those below them. Without it: all.",
            example="[acme/vision]",
        ),
    ),
)

POLICY: Final = Table(
    name="policy",
    fields=(
        Field(name="preemption", shape=Flag(), doc="Preemptible jobs may be ended.", example="true"),
        Field(name="consolidation", shape=Flag(), doc="Preemptible jobs may be moved.", example="false"),
        Field(
            name="backfill",
            shape=Choice(words=("easy", "conservative", "none")),
            doc="Whether later jobs may start before earlier ones that they do not delay: only the first "
            "one, or none of them.",
            example="easy",
        ),
        Field(
            name="attained_service",
            shape=Flag(),
            doc="Jobs that have used less go first, among checkpointing ones of one queue.",
            example="false",
        ),
        Field(name="min_runtime", shape=SECONDS, doc="Nothing younger is ended.", example="10m"),
        Field(
            name="aging", shape=SECONDS, doc="After so long a job rises by one priority class.", example="1d"
        ),
        Field(
            name="half_life",
            shape=SECONDS,
            doc="Half-life of past usage, as it counts in the order.",
            example="7d",
        ),
    ),
)

TENANCY: Final = Table(
    name="tenancy",
    fields=(
        Field(
            name="queues",
            shape=MapOf(
                key=Notation(says="the path of a queue", parse=parse_queue_path),
                value=QUEUE,
                null_will_do=True,
                says="a mapping from path to queue",
            ),
            doc="The tree of tenants: a path for each queue.",
            example="{acme: {limit: {gpus: 32}}, acme/vision: {deserved: {gpus: 16}}}",
            also=("queue", "quotas"),
        ),
        Field(
            name="groups",
            shape=MapOf(
                key=Notation(says="a name", parse=parse_plain_name),
                value=GROUP,
                says="a mapping from name to group",
            ),
            doc="Groups of nodes for a purpose.",
            example="{training: {nodes: [gpu-*]}}",
            also=("group",),
        ),
        Field(
            name="presets",
            shape=MapOf(
                key=Notation(says="a name", parse=parse_plain_name),
                value=CANDIDATE,
                says="a mapping from name to resources",
            ),
            doc="Resources by name, for `preset: NAME`.",
            example="{small: {cpus: 2, memory: 8, accelerators: A100:0.25}}",
            also=("preset",),
        ),
        Field(
            name="policy",
            shape=POLICY,
            doc="How the pool scheduler behaves.",
            example="{backfill: easy, min_runtime: 10m}",
        ),
        Field(
            name="sessions",
            shape=SESSIONS,
            doc="When sessions that nobody uses rest, where neither they nor their queue say it.",
            example="{idle: 2h, gpu_idle: 30m}",
        ),
    ),
)
