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
    "a path, or a mapping with `url` and `ref`",
    (
        PATH,
        Table(
            "workdir",
            (
                Field(
                    "url",
                    Text("the URL of a git repository", notation.parse_path),
                    "Git repository.",
                    "https://example.com/repository.git",
                    secret=True,
                ),
                Field(
                    "ref",
                    AsText("a branch, tag or commit"),
                    "Branch, tag or commit.",
                    "main",
                    also=("branch", "tag", "commit"),
                ),
            ),
        ),
    ),
)

_VOLUME: Final = OneOf(
    "the name of a volume, or a mapping",
    (
        Text("the name of a volume"),
        Table(
            "volumes",
            (
                Field("name", Text(), "Name.", "data"),
                Field("size", SIZE, "Of one that is made.", "100GB", keep=True),
                Field("sub_path", PATH, "Folder in it.", "runs"),
                Field("type", Text(), "One of a place.", "k8s-pvc", keep=True),
                Field("labels", MapOf(Text(), AsText()), "Tags.", "{a: b}", later=True),
                Field("infra", Text(), "Where.", "k8s/lab", keep=True),
                Field("config", OPEN_MAP, "Settings.", "{host_path: /data}", keep=True),
            ),
        ),
    ),
)

_SIZES_BY_URL: Final = MapOf(SOURCE, Number(says="a number of GB"), "a mapping from URL to GB")

TASK: Final = Table(
    "",
    (
        Field(
            "name",
            Text("a name", _task_name),
            "Name of the task or job.",
            "train",
            also=("job_name", "title"),
        ),
        Field(
            "workdir",
            _WORKDIR,
            "Folder that travels to every node and in which `setup` and `run` work; or a git repository.",
            ".",
            also=("working_dir", "work_dir", "cwd"),
        ),
        Field(
            "setup",
            Text("shell commands"),
            "Shell commands, once on every node before `run`; `exec` skips them.",
            "pip install -r requirements.txt",
            verbatim=True,
            also=("install", "init", "before"),
        ),
        Field(
            "run",
            Text("shell commands"),
            "Shell commands on every node.",
            "python train.py",
            verbatim=True,
            also=("command", "cmd", "script", "entrypoint", "commands"),
        ),
        Field(
            "envs",
            MapOf(VARIABLE, AsText("text or a number", nullable=True), "a mapping from variable to text"),
            "Environment of `setup` and `run`, and `${K}` in the other fields. `null` must be given by "
            "`--env`.",
            "{EPOCHS: 10, DATA: null}",
            verbatim=True,
            also=("env", "environment", "variables", "env_vars"),
        ),
        Field(
            "secrets",
            OneOf(
                "a mapping from variable to text, or a list of variables",
                (
                    MapOf(VARIABLE, AsText("text", nullable=True), "a mapping from variable to text"),
                    ListOf(VARIABLE, says="a list of variables"),
                ),
            ),
            "As `envs`, and never shown. `null`, and each name of a list, must be given by `--secret`.",
            "{TOKEN: null}",
            verbatim=True,
            secret=True,
            also=("secret",),
        ),
        Field(
            "secret_files",
            MapOf(
                VARIABLE,
                Text("a name, or a path from `/`", notation.parse_secret_path),
                "a mapping from secret to file",
            ),
            "Secrets that are files instead of variables: in the memory of the node only, readable by "
            "the program alone, gone with it. `$NAME_FILE` says where; names are in `$ARGOSY_SECRETS_DIR`.",
            "{TLS_KEY: /run/secrets/tls.key}",
        ),
        Field(
            "num_nodes",
            OneOf(
                "a whole number from 1, or a range such as `2-8`",
                (
                    Whole(minimum=1, maximum=notation.NODES_MAX, says="a whole number from 1"),
                    Text(
                        "a whole number from 1, or a range such as `2-8`",
                        notation.parse_nodes,
                        pattern=r"^[0-9]+ *- *[0-9]+$",
                    ),
                ),
            ),
            "Nodes that start together and end together. `2-8`: a managed job runs on as many as can be "
            "had, at least 2. Of TPU slices over several hosts it counts slices, and each host is a node.",
            "2",
            also=("nodes", "node_count", "num_node"),
        ),
        Field(
            "resources", RESOURCES, "What every node must have.", "{cpus: 2+, memory: 4+}", also=("resource",)
        ),
        Field(
            "file_mounts",
            MapOf(
                TARGET,
                OneOf("a local path, a URL or a mapping", (SOURCE, STORAGE)),
                "a mapping from path on the node to source",
            ),
            "`{path on the node: source}`: a local file or folder, or the URL of objects, which are "
            "copied. Relative paths are in the workdir.",
            "{~/data: ./data}",
            also=("files", "file_mount", "mounts", "inputs_from"),
        ),
        Field(
            "max_duration",
            SPAN,
            "The job is ended when `run` takes longer.",
            "36h",
            also=("timeout", "time_limit", "walltime", "max_time"),
        ),
        Field(
            "grace",
            SECONDS,
            "Time between SIGTERM and SIGKILL; a bare number is seconds.",
            "30s",
            also=("grace_period", "grace_s", "termination_grace_period_seconds"),
        ),
        Field(
            "checkpoints",
            CHECKPOINTS,
            "Where copies of what a job saves in `ARGOSY_CHECKPOINT_DIR` are kept, and how many: a URL, "
            "or a mapping.",
            "{to: s3://bucket/run-42/, keep_last: 3, keep_every: 6h}",
        ),
        Field(
            "config",
            CONFIG,
            "Settings of infrastructures for this task.",
            "{docker: {run_options: [--ipc=host]}}",
            verbatim=True,
            keep=True,
        ),
        *OWN_JOBS,
        Field(
            "managed_secrets",
            ListOf(
                OneOf(
                    "a name, or `{name: {mount_path: PATH}}`",
                    (
                        Text("a name"),
                        MapOf(
                            Text("a name"),
                            Table("managed_secrets", (Field("mount_path", PATH, "File.", "/run/key"),)),
                        ),
                    ),
                )
            ),
            "Secrets that the server keeps.",
            "[token, {key: {mount_path: /run/key}}]",
            later=True,
        ),
        Field(
            "volumes",
            MapOf(TARGET, _VOLUME, "a mapping from path to volume"),
            "Folders that live on (`argosy folder create`), by path on the node; `:ro` to read only.",
            "{/mnt/data: data:ro, /mnt/runs: {name: runs, sub_path: seven}}",
        ),
        Field(
            "storage_mounts",
            MapOf(TARGET, OneOf("a URL or a mapping", (SOURCE, STORAGE)), "a mapping from path to URL"),
            "Object storage by path on the node; mounted unless it says otherwise.",
            "{/data/main: s3://my-data/}",
        ),
        Field(
            "sync",
            SYNC,
            "What of `file_mounts` and `storage_mounts` is copied.",
            '{include: ["*.pt"], exclude: ["*.tmp"], mode: incremental}',
        ),
        Field(
            "service",
            SERVICE,
            "Serve it: replicas behind one endpoint.",
            "{readiness_probe: /health, replicas: 3}",
            keep=True,
            late=True,
        ),
        Field(
            "function",
            FUNCTION,
            "Serve a handler that was written for AWS Lambda, in the place of `run`.",
            "{handler: app.lambda_handler, timeout: 30}",
        ),
        Field("pool", POOL, "Workers that jobs borrow.", "{workers: 4}", later=True),
        Field(
            "event_callback",
            Text("shell commands"),
            "Shell commands at every change of state.",
            "notify.sh",
            later=True,
            verbatim=True,
        ),
        Field("api_server_access", Flag(), "Let the program call Argosy itself.", "true", later=True),
        Field(
            "inputs",
            _SIZES_BY_URL,
            "Sizes of what is read, for the price of traffic.",
            "{s3://my-data: 100}",
            later=True,
        ),
        Field(
            "outputs",
            MapOf(
                SOURCE,
                OneOf("a URL, or a number of GB", (Number(), SOURCE)),
                "a mapping from path to URL, or from URL to GB",
            ),
            "`{path on the node: URL}`: what lies there when the program has ended is sent to that "
            "store. `{URL: GB}`: how much is written, for the price of traffic.",
            "{gs://my-results: 5}",
            later=True,
            quiet=True,
            keep=True,
        ),
        Field(
            "deadline",
            Notation(
                "a time such as `2030-01-31 18:00`, or a duration such as `12h`", notation.parse_deadline
            ),
            "When it must be done: a time (UTC unless it says otherwise), or how long after it was "
            "submitted. Spot machines "
            "are used as long as it can be met with them.",
            "12h",
        ),
        Field(
            "estimated_hours",
            Notation("a number of hours above 0, or a duration", notation.parse_hours_s),
            "How long all of it is expected to take. Earlier runs of the same name count more.",
            "6.5",
            also=("estimated_runtime", "duration"),
        ),
        Field(
            "progress",
            Notation("a part such as `40%` or `0.4`", notation.parse_part_milli),
            "Part of the work that is done already, in checkpoints that it goes on from.",
            "40%",
        ),
        Field(
            "objective",
            Choice(("cost", "time", "carbon")),
            "What the best place is: the cheapest, the fastest, or that with the least carbon.",
            "time",
            also=("optimize", "optimise", "goal"),
        ),
        Field(
            "scheduling",
            SCHEDULING,
            "How it shares machines with others: queue, preemption, topology, isolation.",
            "{queue: acme/vision, preemptible: true, checkpoint: true}",
            also=("queue", "schedule", "scheduler", "scheduling_policy"),
        ),
        Field(
            "networking",
            NETWORKING,
            "Network that the nodes join, for all candidates of `resources`; places that have none to "
            "choose from are refused.",
            "{vpc_name: lab}",
        ),
        *ORDER,
        LOCATION,
        EDGE_CONFIG,
        Field(
            "quantum_backend",
            Text("the name of a quantum backend"),
            "A quantum computer beside the nodes.",
            "simulator",
            later=True,
        ),
        Field(
            "experimental",
            OPEN_MAP,
            "SkyPilot's older place for `config`.",
            "{config_overrides: {docker: {run_options: [--ipc=host]}}}",
            later=True,
        ),
        Field(
            "file_mounts_mapping", OPEN_MAP, "Written by SkyPilot into stored tasks.", "{a: b}", later=True
        ),
        Field(
            "volume_mounts", ListOf(Open()), "Written by SkyPilot into stored tasks.", "[{a: b}]", later=True
        ),
        Field("_metadata", OPEN_MAP, "Written by SkyPilot into stored tasks.", "{a: b}", later=True),
    ),
)

#: The first of several documents, when it holds nothing else.
HEADER: Final = Table(
    "",
    (
        Field("name", Text("a name", _task_name), "Name of the whole.", "nightly"),
        Field(
            "execution",
            Choice(("serial", "parallel")),
            "One after the other, or a group at the same time.",
            "parallel",
        ),
        *HEADER_ORDER,
        Field("primary_tasks", TEXTS, "The group ends with these.", "[train]"),
        Field(
            "termination_delay",
            OneOf(
                "a duration such as `30s`, or a mapping from task to duration",
                (SECONDS, MapOf(Text(), SECONDS)),
            ),
            "Time that the others get after that.",
            "30s",
        ),
        Field(
            "inter_connection",
            OneOf("a boolean or a mapping", (Flag(), OPEN_MAP, Text())),
            "Whether the tasks of a group reach each other.",
            "true",
        ),
    ),
)

#: Fields of other systems' files, to say at once what kind of file was given.
FOREIGN: Final[dict[str, str]] = {
    "apiVersion": "this looks like a Kubernetes manifest: `argosy convert FILE` makes a task of it",
    "kind": "this looks like a Kubernetes manifest: `argosy convert FILE` makes a task of it",
    "type": "a job file of another system becomes a task by `argosy convert FILE`, and a file of volumes is "
    "for `argosy volumes apply FILE`",
    "$schema": "this looks like a job of Azure ML: `argosy convert FILE` makes a task of it",
    "workerPoolSpecs": "this looks like a job of Vertex AI: `argosy convert FILE` makes a task of it",
    "containerDefinitions": "this looks like a task of ECS: `argosy convert FILE` makes a task of it",
    "jobs": "this looks like a CI workflow; `argosy launch` wants a task with `run:`",
    "on": "this looks like a CI workflow; `argosy launch` wants a task with `run:`",
    "services": "this looks like a compose file: `argosy convert FILE` makes tasks of it",
    "steps": "write the commands, one after the other, under `run: |`",
    "tasks": "separate several tasks with a line `---`",
}
#: Fields of other versions of SkyPilot: (table, field) -> what to write.
ELSEWHERE: Final[dict[tuple[str, str], str]] = {
    ("service", "https"): "write `tls: {keyfile: key.pem, certfile: cert.pem}`",
    ("service.replica_policy", "spot_zones"): "say `zone` in `any_of` of the resources",
    ("service.replica_policy", "spot_policy"): "write `spot_placer: dynamic_fallback`",
    ("service.replica_policy", "init_replicas"): "write `min_replicas`",
    ("resources", "termination_hook"): "write `hooks:` at the top, beside `resources:`",
    ("job_recovery", "min_nodes"): "write a range at the top, such as `num_nodes: 2-8`",
}
