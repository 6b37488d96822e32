"""Parts of a task that are checked now and executed later: storage, service, pool, config."""

from __future__ import annotations

from typing import Final

from argosy.model.places import READS_TASK, TASK_FIELDS
from argosy.model.serving import BALANCES, SPREADS
from argosy.spec import notation
from argosy.spec.leaves import OPEN_MAP, PATH, SECONDS, SOURCE, TEXTS
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
from argosy.spec.triggers import TARGETS, TRIGGERS

_MOUNT_OPTIONS: Final = Table(
    name="file_mounts.config",
    lenient=True,
    fields=(
        Field(
            name="mount_cached",
            shape=Table(
                name="file_mounts.config.mount_cached",
                lenient=True,
                fields=(
                    Field(name="transfers", shape=Whole(minimum=1), doc="Parallel uploads.", example="4"),
                    Field(name="buffer_size", shape=AsText(), doc="Buffer per file.", example="16M"),
                    Field(name="vfs_cache_max_size", shape=AsText(), doc="Size of the cache.", example="10G"),
                    Field(name="vfs_cache_max_age", shape=AsText(), doc="Age in the cache.", example="1h"),
                    Field(name="vfs_read_ahead", shape=AsText(), doc="Read ahead.", example="128M"),
                    Field(name="vfs_read_chunk_size", shape=AsText(), doc="Size of a read.", example="32M"),
                    Field(
                        name="vfs_read_chunk_streams",
                        shape=Whole(minimum=0),
                        doc="Parallel reads.",
                        example="4",
                    ),
                    Field(name="vfs_write_back", shape=AsText(), doc="Delay of writes.", example="1s"),
                    Field(name="read_only", shape=Flag(), doc="No writes.", example="true"),
                ),
            ),
            doc="Tuning of `MOUNT_CACHED`.",
            example="{transfers: 4}",
        ),
        Field(
            name="mount",
            shape=Table(
                name="file_mounts.config.mount",
                lenient=True,
                fields=(
                    Field(name="read_only", shape=Flag(), doc="No writes.", example="true"),
                    Field(
                        name="hf_mount_args",
                        shape=OneOf(says="text or a list", shapes=(Text(), TEXTS)),
                        doc="Arguments of hf-mount.",
                        example="--verbose",
                    ),
                ),
            ),
            doc="Tuning of `MOUNT`.",
            example="{read_only: true}",
        ),
    ),
)

STORAGE: Final = Table(
    name="file_mounts",
    fields=(
        Field(name="name", shape=Text(says="the name of a bucket"), doc="Bucket.", example="my-data"),
        Field(
            name="source",
            shape=ListOf(item=SOURCE, one_will_do=True, says="a path, a URL or a list of paths"),
            doc="URL of a bucket, or local paths to fill it with.",
            example="s3://my-data",
            also=("src", "path", "url"),
        ),
        Field(
            name="store",
            shape=Text(says="a kind of store such as `s3`"),
            doc="Kind of store for a new bucket.",
            example="s3",
        ),
        Field(name="persistent", shape=Flag(), doc="Whether the bucket stays.", example="false"),
        Field(
            name="mode",
            shape=Choice(words=("MOUNT", "MOUNT_CACHED", "COPY")),
            doc="Stream it, stream with a cache, or copy.",
            example="MOUNT_CACHED",
        ),
        Field(name="type", shape=Text(), doc="Kind of storage.", example="bucket", keep=True),
        Field(
            name="config",
            shape=_MOUNT_OPTIONS,
            doc="Tuning.",
            example="{mount: {read_only: true}}",
            keep=True,
        ),
        Field(
            name="encryption",
            keep=True,
            shape=OPEN_MAP,
            doc="How the data is encrypted.",
            example="{type: AES256, key_id: key-1}",
        ),
        *(
            Field(
                name=name,
                shape=Open(),
                doc="Written by SkyPilot into stored tasks.",
                example="true",
                keep=True,
            )
            for name in ("_bucket_sub_path", "_force_delete", "_is_sky_managed")
        ),
    ),
)

SYNC: Final = Table(
    name="sync",
    fields=(
        Field(name="include", shape=TEXTS, doc="Patterns of what travels.", example='["*.pt"]'),
        Field(name="exclude", shape=TEXTS, doc="Patterns of what stays.", example='["*.tmp"]'),
        Field(
            name="mode",
            shape=Choice(words=("incremental", "full")),
            doc="Whether unchanged files travel again.",
            example="incremental",
        ),
    ),
)


# ---------------------------------------------------------------------------------------------- service

SECOND_COUNT: Final = Number(minimum=0, says="a number of seconds")


def _seconds_field(name: str, doc: str, example: str) -> Field:
    return Field(name=name, shape=SECOND_COUNT, doc=doc, example=example)


_PROBE: Final = OneOf(
    says="a path such as `/health`, or a mapping",
    shapes=(
        Text(says="a path such as `/health`"),
        Table(
            name="service.readiness_probe",
            fields=(
                Field(name="path", shape=Text(), doc="Path that is asked.", example="/health"),
                Field(name="post_data", shape=Open(), doc="Body; makes it a POST.", example="{prompt: hi}"),
                Field(
                    name="headers",
                    shape=MapOf(key=Text(), value=AsText()),
                    doc="Headers.",
                    example="{X-Probe: '1'}",
                    secret=True,
                ),
                _seconds_field("initial_delay_seconds", "Time to become ready.", "1200"),
                _seconds_field("timeout_seconds", "Time for an answer.", "15"),
                _seconds_field("endpoint_probe_interval_seconds", "Time between probes.", "10"),
                _seconds_field("consecutive_failure_threshold_timeout", "Failing so long is dead.", "180"),
            ),
        ),
    ),
)

_COUNT: Final = Whole(minimum=0)

POOL: Final = Table(
    name="pool",
    fields=(
        Field(name="workers", shape=_COUNT, doc="A fixed number.", example="4"),
        Field(name="min_workers", shape=_COUNT, doc="At least.", example="1"),
        Field(name="max_workers", shape=_COUNT, doc="At most.", example="8"),
        Field(
            name="queue_length_threshold", shape=_COUNT, doc="Waiting jobs that add a worker.", example="2"
        ),
        _seconds_field("upscale_delay_seconds", "Wait before adding.", "60"),
        _seconds_field("downscale_delay_seconds", "Wait before removing.", "600"),
    ),
)

_MODEL: Final = Table(
    name="service.models",
    fields=(
        Field(
            name="weight",
            shape=Number(minimum=0, says="a number of per cent"),
            doc="Per cent of the requests that name no model; all weights sum to 100.",
            example="90",
        ),
        Field(
            name="model",
            shape=ListOf(item=Text(says="the name of a model"), one_will_do=True),
            doc="Other names in requests than this one.",
            example="org/small",
        ),
        Field(name="run", shape=Text(says="shell commands"), doc="Its program.", example="serve"),
        Field(name="setup", shape=Text(says="shell commands"), doc="Before it.", example="pip install x"),
        Field(name="envs", shape=OPEN_MAP, doc="Over the task's.", example="{MODEL: org/small}"),
        Field(name="resources", shape=OPEN_MAP, doc="Over the task's.", example="{cpus: 4}"),
        Field(name="replicas", shape=_COUNT, doc="In place of the service's.", example="2"),
        Field(
            name="replica_policy",
            shape=OPEN_MAP,
            doc="In place of the service's.",
            example="{min_replicas: 1, max_replicas: 3}",
        ),
    ),
)

SERVICE: Final = Table(
    name="service",
    fields=(
        Field(
            name="readiness_probe",
            shape=_PROBE,
            doc="How to see that a replica is ready.",
            example="{path: /health, initial_delay_seconds: 60}",
            also=("probe", "healthcheck", "health_check", "readiness"),
        ),
        Field(name="replicas", shape=_COUNT, doc="A fixed number of replicas.", example="3"),
        Field(
            name="model",
            shape=ListOf(item=Text(says="the name of a model"), one_will_do=True),
            doc="What requests to language models say as `model`; they also come in at the common `/v1`.",
            example="org/small",
        ),
        Field(
            name="models",
            shape=MapOf(key=Text(says="the name of a model"), value=_MODEL, null_will_do=True),
            doc="Several models or versions behind one endpoint; each is a service of its own.",
            example="{small: {weight: 90}, small-v2: {weight: 10, envs: {MODEL: org/small-v2}}}",
        ),
        Field(
            name="endpoint",
            shape=Text(says="a name"),
            doc="An endpoint that it shares with other services.",
            example="chat",
        ),
        Field(
            name="share",
            shape=Number(minimum=0, says="a number of per cent"),
            doc="Per cent of the requests at the shared endpoint that name no model.",
            example="10",
        ),
        Field(
            name="replica_policy",
            shape=Table(
                name="service.replica_policy",
                fields=(
                    Field(name="min_replicas", shape=_COUNT, doc="At least.", example="1"),
                    Field(name="max_replicas", shape=_COUNT, doc="At most.", example="5"),
                    Field(name="num_overprovision", shape=_COUNT, doc="Spare replicas.", example="1"),
                    Field(
                        name="target_qps_per_replica",
                        shape=OneOf(
                            says="a number, or a mapping from accelerator to number",
                            shapes=(Number(), MapOf(key=Text(says="an accelerator"), value=Number())),
                        ),
                        doc="Requests per second that one replica takes.",
                        example="{A100: 5, L4: 1.5}",
                    ),
                    Field(
                        name="rule",
                        shape=Choice(words=("work", "target", "hpa", "kpa", "ray-serve", "skyserve")),
                        doc="How a number of replicas follows from the load.",
                        example="work",
                    ),
                    Field(
                        name="targets",
                        shape=TARGETS,
                        doc="What one replica takes of `requests` or `tokens` a second, of `concurrency` or "
                        "`queue`; or what `latency` (s), `gpu` and `cpu` (%) are to be.",
                        example="{concurrency: 8, latency: 0.5}",
                    ),
                    Field(
                        name="triggers",
                        shape=TRIGGERS,
                        doc="Numbers outside of the service that it follows, in KEDA's words.",
                        example="[{type: redis, metadata: {address: 'r:6379', listName: jobs}}]",
                    ),
                    _seconds_field("upscale_delay_seconds", "Wait before adding.", "300"),
                    _seconds_field("downscale_delay_seconds", "Wait before removing.", "1200"),
                    Field(
                        name="dynamic_ondemand_fallback",
                        shape=Flag(),
                        doc="On-demand replicas while spot is short.",
                        example="true",
                    ),
                    Field(
                        name="base_ondemand_fallback_replicas",
                        shape=_COUNT,
                        doc="On-demand replicas at all times.",
                        example="1",
                    ),
                    Field(
                        name="spot_placer",
                        shape=Choice(words=("dynamic_fallback",)),
                        doc="Spot replicas are spread over zones, and avoid where one was taken back.",
                        example="dynamic_fallback",
                    ),
                    Field(
                        name="spread",
                        shape=Choice(words=SPREADS),
                        doc="Replicas go where fewest are: by infrastructure, region or zone.",
                        example="region",
                    ),
                ),
            ),
            doc="How many replicas.",
            example="{min_replicas: 1, max_replicas: 5, target_qps_per_replica: 2.5}",
            also=("autoscaling", "scaling"),
        ),
        Field(
            name="load_balancing_policy",
            shape=Choice(words=BALANCES),
            doc="Which replica gets a request.",
            example="least_load",
        ),
        Field(
            name="affinity",
            shape=Notation(says="a part of requests", parse=notation.parse_affinity),
            doc="By what users are told apart: `consistent_hash` and A/B keep each where they are.",
            example="header:x-session-id",
        ),
        Field(
            name="prefill",
            shape=Text(says="a name"),
            doc="Service that reads the prompts of its requests first (vLLM's connectors).",
            example="chat-prefill",
        ),
        Field(
            name="bootstrap_port",
            shape=Whole(minimum=1, maximum=65535),
            doc="Port at which the replicas of `prefill` meet its own: both get a request at once (SGLang).",
            example="8998",
        ),
        _seconds_field("drain_seconds", "A replica that goes lets requests end for so long.", "600"),
        Field(
            name="load_balancer",
            shape=Table(
                name="service.load_balancer",
                fields=(_seconds_field("stream_timeout_seconds", "Silence in a stream.", "120"),),
            ),
            doc="The load balancer.",
            example="{stream_timeout_seconds: 120}",
        ),
        Field(
            name="ports",
            shape=Notation(says="a port", parse=notation.parse_port),
            doc="Port of the replicas.",
            example="8000",
            also=("port",),
        ),
        Field(
            name="domain",
            shape=Notation(says="a host", parse=notation.parse_domain),
            doc="Host of its own: requests for it at the gateway are for this service.",
            example="chat.example.org",
        ),
        Field(
            name="grpc",
            shape=Flag(),
            doc="gRPC for its `domain` goes from the edge straight to the replicas.",
            example="true",
        ),
        Field(name="pool", shape=POOL, doc="Older place of `pool`.", example="{workers: 4}"),
        Field(name="workers", shape=_COUNT, doc="Older spelling of `pool.workers`.", example="4"),
        Field(
            name="tls",
            shape=Table(
                name="service.tls",
                fields=(
                    Field(name="keyfile", shape=PATH, doc="Private key.", example="key.pem"),
                    Field(name="certfile", shape=PATH, doc="Certificate.", example="cert.pem"),
                ),
            ),
            doc="Encryption of the endpoint.",
            example="{keyfile: key.pem, certfile: cert.pem}",
        ),
    ),
)

# ----------------------------------------------------------------------------------------------- config

_HOOKS: Final = ListOf(
    item=Table(
        name="config.hooks",
        fields=(
            Field(
                name="run", shape=Text(says="shell commands"), doc="Commands.", example="sync", verbatim=True
            ),
            Field(
                name="events",
                shape=ListOf(item=Choice(words=("stop", "preemption", "down")), one_will_do=True),
                doc="When.",
                example="[preemption]",
            ),
            Field(name="timeout", shape=SECONDS, doc="Time for it.", example="60"),
        ),
    ),
    maximum=32,
    says="a list of hooks",
)


def _open_fields(names_: str) -> tuple[Field, ...]:
    return tuple(
        Field(name=name, shape=Open(), doc="Passed to the provider.", example="{a: 1}", verbatim=True)
        for name in names_.split()
    )


def _provider_section(name: str, fields: str) -> Field:
    return Field(
        name=name,
        shape=Table(name=f"config.{name}", fields=_open_fields(fields), lenient=True),
        doc="Settings of this infrastructure for this task.",
        example="{" + fields.split()[0] + ": {a: 1}}",
        later=name not in READS_TASK,
        keep=True,
        verbatim=True,
    )


CONFIG: Final = Table(
    name="config",
    fields=(
        Field(
            name="hooks",
            shape=_HOOKS,
            doc="Commands at stop, preemption or down.",
            example="[{run: sync, events: [stop], timeout: 60}]",
            later=True,
            verbatim=True,
        ),
        Field(
            name="active_workspace",
            shape=Text(),
            doc="Workspace.",
            example="team-a",
            later=True,
            verbatim=True,
        ),
        _provider_section("docker", "run_options"),
        _provider_section("nvidia_gpus", "disable_ecc"),
        *(_provider_section(name, " ".join(fields)) for name, fields in TASK_FIELDS.items()),
    ),
)
