"""Every field of the YAML, once: the task here, its larger parts in `fields_resources` and `fields_later`.

The parser, the JSON schema and the documentation all read these tables.

To add a field: one `Field` here, and (when it is executed) one line in `build.py`. A field that is `later` is
checked, kept (`Task.extra`, `Resources.extra`) and named in a warning; it never vanishes silently.
"""

from __future__ import annotations

from typing import Final

from argosy.spec import names, notation
from argosy.spec.fields_data import CHECKPOINTS
from argosy.spec.fields_groups import HEADER_ORDER, ORDER
from argosy.spec.fields_later import CONFIG, POOL, SERVICE, STORAGE, SYNC
from argosy.spec.fields_resources import EDGE_CONFIG, LOCATION, NETWORKING, RESOURCES
from argosy.spec.fields_scheduling import SCHEDULING
from argosy.spec.functions import FUNCTION
from argosy.spec.leaves import OPEN_MAP, PATH, SECONDS, SIZE, SOURCE, SPAN, TARGET, TEXTS, VARIABLE
from argosy.spec.own_jobs import FIELDS as OWN_JOBS
from argosy.spec.shapes import (
    AsText,
    Choice,
    Field,
    Flag,
    ListOf,
    MapOf,
    Notation,
    Number,
    OneOf,
    Open,
    Table,
    Text,
    Whole,
)


def _task_name(text: str) -> str:
    wrong = names.wrong_name("task", text)
    if wrong:
        raise ValueError(f"{wrong}; for example `{names.suggest_name('task', text)}`")
    return text


_WORKDIR: Final = OneOf(
    says="a path, or a mapping with `url` and `ref`",
    shapes=(
        PATH,
        Table(
            name="workdir",
            fields=(
                Field(
                    name="url",
                    shape=Text(says="the URL of a git repository", check=notation.parse_path),
                    doc="Git repository.",
                    example="https://example.com/repository.git",
                    secret=True,  # may carry a token
                ),
                Field(
                    name="ref",
                    shape=AsText(says="a branch, tag or commit"),
                    doc="Branch, tag or commit.",
                    example="main",
                    also=("branch", "tag", "commit"),
                ),
            ),
        ),
    ),
)

_VOLUME: Final = OneOf(
    says="the name of a volume, or a mapping",
    shapes=(
        Text(says="the name of a volume"),
        Table(
            name="volumes",
            fields=(
                Field(name="name", shape=Text(), doc="Name.", example="data"),
                Field(name="size", shape=SIZE, doc="Of one that is made.", example="100GB", keep=True),
                Field(name="sub_path", shape=PATH, doc="Folder in it.", example="runs"),
                Field(name="type", shape=Text(), doc="One of a place.", example="k8s-pvc", keep=True),
                Field(
                    name="labels",
                    shape=MapOf(key=Text(), value=AsText()),
                    doc="Tags.",
                    example="{a: b}",
                    later=True,
                ),
                Field(name="infra", shape=Text(), doc="Where.", example="k8s/lab", keep=True),
                Field(
                    name="config", shape=OPEN_MAP, doc="Settings.", example="{host_path: /data}", keep=True
                ),
            ),
        ),
    ),
)

_SIZES_BY_URL: Final = MapOf(key=SOURCE, value=Number(says="a number of GB"), says="a mapping from URL to GB")

TASK: Final = Table(
    name="",
    fields=(
        Field(
            name="name",
            shape=Text(says="a name", check=_task_name),
            doc="Name of the task or job.",
            example="train",
            also=("job_name", "title"),
        ),
        Field(
            name="workdir",
            shape=_WORKDIR,
            doc="Folder that travels to every node and in which `setup` and `run` work; or a git repository.",
            example=".",
            also=("working_dir", "work_dir", "cwd"),
        ),
        Field(
            name="setup",
            shape=Text(says="shell commands"),
            doc="Shell commands, once on every node before `run`; `exec` skips them.",
            example="pip install -r requirements.txt",
            verbatim=True,
            also=("install", "init", "before"),
        ),
        Field(
            name="run",
            shape=Text(says="shell commands"),
            doc="Shell commands on every node.",
            example="python train.py",
            verbatim=True,
            also=("command", "cmd", "script", "entrypoint", "commands"),
        ),
        Field(
            name="envs",
            shape=MapOf(
                key=VARIABLE,
                value=AsText(says="text or a number", nullable=True),
                says="a mapping from variable to text",
            ),
            doc="Environment of `setup` and `run`, and `${K}` in the other fields. `null` must be given by "
            "`--env`.",
            example="{EPOCHS: 10, DATA: null}",
            verbatim=True,
            also=("env", "environment", "variables", "env_vars"),
        ),
        Field(
            name="secrets",
            shape=OneOf(
                says="a mapping from variable to text, or a list of variables",
                shapes=(
                    MapOf(
                        key=VARIABLE,
                        value=AsText(says="text", nullable=True),
                        says="a mapping from variable to text",
                    ),
                    ListOf(item=VARIABLE, says="a list of variables"),
                ),
            ),
            doc="As `envs`, and never shown. `null`, and each name of a list, must be given by `--secret`.",
            example="{TOKEN: null}",
            verbatim=True,
            secret=True,
            also=("secret",),
        ),
        Field(
            name="secret_files",
            shape=MapOf(
                key=VARIABLE,
                value=Text(says="a name, or a path from `/`", check=notation.parse_secret_path),
                says="a mapping from secret to file",
            ),
            doc="Secrets that are files instead of variables: in the memory of the node only, readable by "
            "the program alone, gone with it. `$NAME_FILE` says where; names are in `$ARGOSY_SECRETS_DIR`.",
            example="{TLS_KEY: /run/secrets/tls.key}",
        ),
        Field(
            name="num_nodes",
            shape=OneOf(
                says="a whole number from 1, or a range such as `2-8`",
                shapes=(
                    Whole(minimum=1, maximum=notation.NODES_MAX, says="a whole number from 1"),
                    Text(
                        says="a whole number from 1, or a range such as `2-8`",
                        check=notation.parse_nodes,
                        pattern=r"^[0-9]+ *- *[0-9]+$",
                    ),
                ),
            ),
            doc="Nodes that start together and end together. `2-8`: a managed job runs on as many as can be "
            "had, at least 2. Of TPU slices over several hosts it counts slices, and each host is a node.",
            example="2",
            also=("nodes", "node_count", "num_node"),
        ),
        Field(
            name="resources",
            shape=RESOURCES,
            doc="What every node must have.",
            example="{cpus: 2+, memory: 4+}",
            also=("resource",),
        ),
        Field(
            name="file_mounts",
            shape=MapOf(
                key=TARGET,
                value=OneOf(says="a local path, a URL or a mapping", shapes=(SOURCE, STORAGE)),
                says="a mapping from path on the node to source",
            ),
            doc="`{path on the node: source}`: a local file or folder, or the URL of objects, which are "
            "copied. Relative paths are in the workdir.",
            example="{~/data: ./data}",
            also=("files", "file_mount", "mounts", "inputs_from"),
        ),
        Field(
            name="max_duration",
            shape=SPAN,
            doc="The job is ended when `run` takes longer.",
            example="36h",
            also=("timeout", "time_limit", "walltime", "max_time"),
        ),
        Field(
            name="grace",
            shape=SECONDS,
            doc="Time between SIGTERM and SIGKILL; a bare number is seconds.",
            example="30s",
            also=("grace_period", "grace_s", "termination_grace_period_seconds"),
        ),
        Field(
            name="checkpoints",
            shape=CHECKPOINTS,
            doc="Where copies of what a job saves in `ARGOSY_CHECKPOINT_DIR` are kept, and how many: a URL, "
            "or a mapping.",
            example="{to: s3://bucket/run-42/, keep_last: 3, keep_every: 6h}",
        ),
        Field(
            name="config",
            shape=CONFIG,
            doc="Settings of infrastructures for this task.",
            example="{docker: {run_options: [--ipc=host]}}",
            verbatim=True,
            keep=True,
        ),
        *OWN_JOBS,
        Field(
            name="managed_secrets",
            shape=ListOf(
                item=OneOf(
                    says="a name, or `{name: {mount_path: PATH}}`",
                    shapes=(
                        Text(says="a name"),
                        MapOf(
                            key=Text(says="a name"),
                            value=Table(
                                name="managed_secrets",
                                fields=(
                                    Field(name="mount_path", shape=PATH, doc="File.", example="/run/key"),
                                ),
                            ),
                        ),
                    ),
                )
            ),
            doc="Secrets that the server keeps.",
            example="[token, {key: {mount_path: /run/key}}]",
            later=True,
        ),
        Field(
            name="volumes",
            shape=MapOf(key=TARGET, value=_VOLUME, says="a mapping from path to volume"),
            doc="Folders that live on (`argosy folder create`), by path on the node; `:ro` to read only.",
            example="{/mnt/data: data:ro, /mnt/runs: {name: runs, sub_path: seven}}",
        ),
        Field(
            name="storage_mounts",
            shape=MapOf(
                key=TARGET,
                value=OneOf(says="a URL or a mapping", shapes=(SOURCE, STORAGE)),
                says="a mapping from path to URL",
            ),
            doc="Object storage by path on the node; mounted unless it says otherwise.",
            example="{/data/main: s3://my-data/}",
        ),
        Field(
            name="sync",
            shape=SYNC,
            doc="What of `file_mounts` and `storage_mounts` is copied.",
            example='{include: ["*.pt"], exclude: ["*.tmp"], mode: incremental}',
        ),
        Field(
            name="service",
            shape=SERVICE,
            doc="Serve it: replicas behind one endpoint.",
            example="{readiness_probe: /health, replicas: 3}",
            keep=True,
            late=True,
        ),
        Field(
            name="function",
            shape=FUNCTION,
            doc="Serve a handler that was written for AWS Lambda, in the place of `run`.",
            example="{handler: app.lambda_handler, timeout: 30}",
        ),
        Field(name="pool", shape=POOL, doc="Workers that jobs borrow.", example="{workers: 4}", later=True),
        Field(
            name="event_callback",
            shape=Text(says="shell commands"),
            doc="Shell commands at every change of state.",
            example="notify.sh",
            later=True,
            verbatim=True,
        ),
        Field(
            name="api_server_access",
            shape=Flag(),
            doc="Let the program call Argosy itself.",
            example="true",
            later=True,
        ),
        Field(
            name="inputs",
            shape=_SIZES_BY_URL,
            doc="Sizes of what is read, for the price of traffic.",
            example="{s3://my-data: 100}",
            later=True,
        ),
        Field(
            name="outputs",
            shape=MapOf(
                key=SOURCE,
                value=OneOf(says="a URL, or a number of GB", shapes=(Number(), SOURCE)),
                says="a mapping from path to URL, or from URL to GB",
            ),
            doc="`{path on the node: URL}`: what lies there when the program has ended is sent to that "
            "store. `{URL: GB}`: how much is written, for the price of traffic.",
            example="{gs://my-results: 5}",
            later=True,
            quiet=True,
            keep=True,
        ),
        Field(
            name="deadline",
            shape=Notation(
                says="a time such as `2030-01-31 18:00`, or a duration such as `12h`",
                parse=notation.parse_deadline,
            ),
            doc="When it must be done: a time (UTC unless it says otherwise), or how long after it was "
            "submitted. Spot machines "
            "are used as long as it can be met with them.",
            example="12h",
        ),
        Field(
            name="estimated_hours",
            shape=Notation(says="a number of hours above 0, or a duration", parse=notation.parse_hours_s),
            doc="How long all of it is expected to take. Earlier runs of the same name count more.",
            example="6.5",
            also=("estimated_runtime", "duration"),
        ),
        Field(
            name="progress",
            shape=Notation(says="a part such as `40%` or `0.4`", parse=notation.parse_part_milli),
            doc="Part of the work that is done already, in checkpoints that it goes on from.",
            example="40%",
        ),
        Field(
            name="objective",
            shape=Choice(words=("cost", "time", "carbon")),
            doc="What the best place is: the cheapest, the fastest, or that with the least carbon.",
            example="time",
            also=("optimize", "optimise", "goal"),
        ),
        Field(
            name="scheduling",
            shape=SCHEDULING,
            doc="How it shares machines with others: queue, preemption, topology, isolation.",
            example="{queue: acme/vision, preemptible: true, checkpoint: true}",
            also=("queue", "schedule", "scheduler", "scheduling_policy"),
        ),
        Field(
            name="networking",
            shape=NETWORKING,
            doc="Network that the nodes join, for all candidates of `resources`; places that have none to "
            "choose from are refused.",
            example="{vpc_name: lab}",
        ),
        *ORDER,
        LOCATION,
        EDGE_CONFIG,
        Field(
            name="quantum_backend",
            shape=Text(says="the name of a quantum backend"),
            doc="A quantum computer beside the nodes.",
            example="simulator",
            later=True,
        ),
        Field(
            name="experimental",
            shape=OPEN_MAP,
            doc="SkyPilot's older place for `config`.",
            example="{config_overrides: {docker: {run_options: [--ipc=host]}}}",
            later=True,
        ),
        Field(
            name="file_mounts_mapping",
            shape=OPEN_MAP,
            doc="Written by SkyPilot into stored tasks.",
            example="{a: b}",
            later=True,
        ),
        Field(
            name="volume_mounts",
            shape=ListOf(item=Open()),
            doc="Written by SkyPilot into stored tasks.",
            example="[{a: b}]",
            later=True,
        ),
        Field(
            name="_metadata",
            shape=OPEN_MAP,
            doc="Written by SkyPilot into stored tasks.",
            example="{a: b}",
            later=True,
        ),
    ),
)

#: The first of several documents, when it holds nothing else.
HEADER: Final = Table(
    name="",
    fields=(
        Field(
            name="name",
            shape=Text(says="a name", check=_task_name),
            doc="Name of the whole.",
            example="nightly",
        ),
        Field(
            name="execution",
            shape=Choice(words=("serial", "parallel")),
            doc="One after the other, or a group at the same time.",
            example="parallel",
        ),
        *HEADER_ORDER,
        Field(name="primary_tasks", shape=TEXTS, doc="The group ends with these.", example="[train]"),
        Field(
            name="termination_delay",
            shape=OneOf(
                says="a duration such as `30s`, or a mapping from task to duration",
                shapes=(SECONDS, MapOf(key=Text(), value=SECONDS)),
            ),
            doc="Time that the others get after that.",
            example="30s",
        ),
        Field(
            name="inter_connection",
            shape=OneOf(says="a boolean or a mapping", shapes=(Flag(), OPEN_MAP, Text())),
            doc="Whether the tasks of a group reach each other.",
            example="true",
        ),
    ),
)

#: Fields of other systems' files, to say at once what kind of file was given.
FOREIGN: Final[dict[str, str]] = {
    "apiVersion": "this looks like a Kubernetes manifest; put the task itself into a file of its own",
    "kind": "this looks like a Kubernetes manifest; put the task itself into a file of its own",
    "jobs": "this looks like a CI workflow; `argosy launch` wants a task with `run:`",
    "on": "this looks like a CI workflow; `argosy launch` wants a task with `run:`",
    "services": "this looks like a compose file; a task has one `run:`, and `service:` to serve it",
    "steps": "write the commands, one after the other, under `run: |`",
    "tasks": "separate several tasks with a line `---`",
}
