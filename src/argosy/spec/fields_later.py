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
    "file_mounts.config",
    (
        Field(
            "mount_cached",
            Table(
                "file_mounts.config.mount_cached",
                (
                    Field("transfers", Whole(minimum=1), "Parallel uploads.", "4"),
                    Field("buffer_size", AsText(), "Buffer per file.", "16M"),
                    Field("vfs_cache_max_size", AsText(), "Size of the cache.", "10G"),
                    Field("vfs_cache_max_age", AsText(), "Age in the cache.", "1h"),
                    Field("vfs_read_ahead", AsText(), "Read ahead.", "128M"),
                    Field("vfs_read_chunk_size", AsText(), "Size of a read.", "32M"),
                    Field("vfs_read_chunk_streams", Whole(minimum=0), "Parallel reads.", "4"),
                    Field("vfs_write_back", AsText(), "Delay of writes.", "1s"),
                    Field("read_only", Flag(), "No writes.", "true"),
                ),
                lenient=True,
            ),
            "Tuning of `MOUNT_CACHED`.",
            "{transfers: 4}",
        ),
        Field(
            "mount",
            Table(
                "file_mounts.config.mount",
                (
                    Field("read_only", Flag(), "No writes.", "true"),
                    Field(
                        "hf_mount_args",
                        OneOf("text or a list", (Text(), TEXTS)),
                        "Arguments of hf-mount.",
                        "--verbose",
                    ),
                ),
                lenient=True,
            ),
            "Tuning of `MOUNT`.",
            "{read_only: true}",
        ),
    ),
    lenient=True,
)

STORAGE: Final = Table(
    "file_mounts",
    (
        Field("name", Text("the name of a bucket"), "Bucket.", "my-data"),
        Field(
            "source",
            ListOf(SOURCE, one_will_do=True, says="a path, a URL or a list of paths"),
            "URL of a bucket, or local paths to fill it with.",
            "s3://my-data",
            also=("src", "path", "url"),
        ),
        Field("store", Text("a kind of store such as `s3`"), "Kind of store for a new bucket.", "s3"),
        Field("persistent", Flag(), "Whether the bucket stays.", "false"),
        Field(
            "mode",
            Choice(("MOUNT", "MOUNT_CACHED", "COPY")),
            "Stream it, stream with a cache, or copy.",
            "MOUNT_CACHED",
        ),
        Field("type", Text(), "Kind of storage.", "bucket", keep=True),
        Field("config", _MOUNT_OPTIONS, "Tuning.", "{mount: {read_only: true}}", keep=True),
        Field(
            "encryption", OPEN_MAP, "How the data is encrypted.", "{type: AES256, key_id: key-1}", keep=True
        ),
        *(
            Field(name, Open(), "Written by SkyPilot into stored tasks.", "true", keep=True)
            for name in ("_bucket_sub_path", "_force_delete", "_is_sky_managed")
        ),
    ),
)

SYNC: Final = Table(
    "sync",
    (
        Field("include", TEXTS, "Patterns of what travels.", '["*.pt"]'),
        Field("exclude", TEXTS, "Patterns of what stays.", '["*.tmp"]'),
        Field(
            "mode", Choice(("incremental", "full")), "Whether unchanged files travel again.", "incremental"
        ),
    ),
)


# ---------------------------------------------------------------------------------------------- service

SECOND_COUNT: Final = Number(minimum=0, says="a number of seconds")


def _seconds_field(name: str, doc: str, example: str) -> Field:
    return Field(name, SECOND_COUNT, doc, example)


_PROBE: Final = OneOf(
    "a path such as `/health`, or a mapping",
    (
        Text("a path such as `/health`"),
        Table(
            "service.readiness_probe",
            (
                Field("path", Text(), "Path that is asked.", "/health"),
                Field("post_data", Open(), "Body; makes it a POST.", "{prompt: hi}"),
                Field("headers", MapOf(Text(), AsText()), "Headers.", "{X-Probe: '1'}", secret=True),
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
    "pool",
    (
        Field("workers", _COUNT, "A fixed number.", "4"),
        Field("min_workers", _COUNT, "At least.", "1"),
        Field("max_workers", _COUNT, "At most.", "8"),
        Field("queue_length_threshold", _COUNT, "Waiting jobs that add a worker.", "2"),
        _seconds_field("upscale_delay_seconds", "Wait before adding.", "60"),
        _seconds_field("downscale_delay_seconds", "Wait before removing.", "600"),
    ),
)

_MODEL: Final = Table(
    "service.models",
    (
        Field(
            "weight",
            Number(minimum=0, says="a number of per cent"),
            "Per cent of the requests that name no model; all weights sum to 100.",
            "90",
        ),
        Field(
            "model",
            ListOf(Text("the name of a model"), one_will_do=True),
            "Other names in requests than this one.",
            "org/small",
        ),
        Field("run", Text("shell commands"), "Its program.", "serve"),
        Field("setup", Text("shell commands"), "Before it.", "pip install x"),
        Field("envs", OPEN_MAP, "Over the task's.", "{MODEL: org/small}"),
        Field("resources", OPEN_MAP, "Over the task's.", "{cpus: 4}"),
        Field("replicas", _COUNT, "In place of the service's.", "2"),
        Field("replica_policy", OPEN_MAP, "In place of the service's.", "{min_replicas: 1, max_replicas: 3}"),
    ),
)

SERVICE: Final = Table(
    "service",
    (
        Field(
            "readiness_probe",
            _PROBE,
            "How to see that a replica is ready.",
            "{path: /health, initial_delay_seconds: 60}",
            also=("probe", "healthcheck", "health_check", "readiness"),
        ),
        Field("replicas", _COUNT, "A fixed number of replicas.", "3"),
        Field(
            "model",
            ListOf(Text("the name of a model"), one_will_do=True),
            "What requests to language models say as `model`; they also come in at the common `/v1`.",
            "org/small",
        ),
        Field(
            "models",
            MapOf(Text("the name of a model"), _MODEL, null_will_do=True),
            "Several models or versions behind one endpoint; each is a service of its own.",
            "{small: {weight: 90}, small-v2: {weight: 10, envs: {MODEL: org/small-v2}}}",
        ),
        Field("endpoint", Text("a name"), "An endpoint that it shares with other services.", "chat"),
        Field(
            "share",
            Number(minimum=0, says="a number of per cent"),
            "Per cent of the requests at the shared endpoint that name no model.",
            "10",
        ),
        Field(
            "replica_policy",
            Table(
                "service.replica_policy",
                (
                    Field("min_replicas", _COUNT, "At least.", "1"),
                    Field("max_replicas", _COUNT, "At most.", "5"),
                    Field("num_overprovision", _COUNT, "Spare replicas.", "1"),
                    Field(
                        "target_qps_per_replica",
                        OneOf(
                            "a number, or a mapping from accelerator to number",
                            (Number(), MapOf(Text("an accelerator"), Number())),
                        ),
                        "Requests per second that one replica takes.",
                        "{A100: 5, L4: 1.5}",
                    ),
                    Field(
                        "rule",
                        Choice(("work", "target", "hpa", "kpa", "ray-serve", "skyserve")),
                        "How a number of replicas follows from the load.",
                        "work",
                    ),
                    Field(
                        "targets",
                        TARGETS,
                        "What one replica takes of `requests` or `tokens` a second, of `concurrency` or "
                        "`queue`; or what `latency` (s), `gpu` and `cpu` (%) are to be.",
                        "{concurrency: 8, latency: 0.5}",
                    ),
                    Field(
                        "triggers",
                        TRIGGERS,
                        "Numbers outside of the service that it follows, in KEDA's words.",
                        "[{type: redis, metadata: {address: 'r:6379', listName: jobs}}]",
                    ),
                    _seconds_field("upscale_delay_seconds", "Wait before adding.", "300"),
                    _seconds_field("downscale_delay_seconds", "Wait before removing.", "1200"),
                    Field(
                        "dynamic_ondemand_fallback", Flag(), "On-demand replicas while spot is short.", "true"
                    ),
                    Field("base_ondemand_fallback_replicas", _COUNT, "On-demand replicas at all times.", "1"),
                    Field(
                        "spot_placer",
                        Choice(("dynamic_fallback",)),
                        "Spot replicas are spread over zones, and avoid where one was taken back.",
                        "dynamic_fallback",
                    ),
                    Field(
                        "spread",
                        Choice(SPREADS),
                        "Replicas go where fewest are: by infrastructure, region or zone.",
                        "region",
                    ),
                ),
            ),
            "How many replicas.",
            "{min_replicas: 1, max_replicas: 5, target_qps_per_replica: 2.5}",
            also=("autoscaling", "scaling"),
        ),
        Field("load_balancing_policy", Choice(BALANCES), "Which replica gets a request.", "least_load"),
        Field(
            "affinity",
            Notation("a part of requests", notation.parse_affinity),
            "By what users are told apart: `consistent_hash` and A/B keep each where they are.",
            "header:x-session-id",
        ),
        Field(
            "prefill",
            Text("a name"),
            "Service that reads the prompts of its requests first (vLLM's connectors).",
            "chat-prefill",
        ),
        Field(
            "bootstrap_port",
            Whole(minimum=1, maximum=65535),
            "Port at which the replicas of `prefill` meet its own: both get a request at once (SGLang).",
            "8998",
        ),
        _seconds_field("drain_seconds", "A replica that goes lets requests end for so long.", "600"),
        Field(
            "load_balancer",
            Table(
                "service.load_balancer",
                (_seconds_field("stream_timeout_seconds", "Silence in a stream.", "120"),),
            ),
            "The load balancer.",
            "{stream_timeout_seconds: 120}",
        ),
        Field(
            "ports", Notation("a port", notation.parse_port), "Port of the replicas.", "8000", also=("port",)
        ),
        Field(
            "domain",
            Notation("a host", notation.parse_domain),
            "Host of its own: requests for it at the gateway are for this service.",
            "chat.example.org",
        ),
        Field("grpc", Flag(), "gRPC for its `domain` goes from the edge straight to the replicas.", "true"),
        Field("pool", POOL, "Older place of `pool`.", "{workers: 4}"),
        Field("workers", _COUNT, "Older spelling of `pool.workers`.", "4"),
        Field(
            "tls",
            Table(
                "service.tls",
                (
                    Field("keyfile", PATH, "Private key.", "key.pem"),
                    Field("certfile", PATH, "Certificate.", "cert.pem"),
                ),
            ),
            "Encryption of the endpoint.",
            "{keyfile: key.pem, certfile: cert.pem}",
        ),
    ),
)

# ----------------------------------------------------------------------------------------------- config

_HOOKS: Final = ListOf(
    Table(
        "config.hooks",
        (
            Field("run", Text("shell commands"), "Commands.", "sync", verbatim=True),
            Field(
                "events",
                ListOf(Choice(("stop", "preemption", "down")), one_will_do=True),
                "When.",
                "[preemption]",
            ),
            Field("timeout", SECONDS, "Time for it.", "60"),
        ),
    ),
    maximum=32,
    says="a list of hooks",
)


def _open_fields(names_: str) -> tuple[Field, ...]:
    return tuple(
        Field(name, Open(), "Passed to the provider.", "{a: 1}", verbatim=True) for name in names_.split()
    )


def _provider_section(name: str, fields: str) -> Field:
    return Field(
        name,
        Table(f"config.{name}", _open_fields(fields), lenient=True),
        "Settings of this infrastructure for this task.",
        "{" + fields.split()[0] + ": {a: 1}}",
        later=name not in READS_TASK,
        keep=True,
        verbatim=True,
    )


CONFIG: Final = Table(
    "config",
    (
        Field(
            "hooks",
            _HOOKS,
            "Commands at stop, preemption or down.",
            "[{run: sync, events: [stop], timeout: 60}]",
            later=True,
            verbatim=True,
        ),
        Field("active_workspace", Text(), "Workspace.", "team-a", later=True, verbatim=True),
        _provider_section("docker", "run_options"),
        _provider_section("nvidia_gpus", "disable_ecc"),
        *(_provider_section(name, " ".join(fields)) for name, fields in TASK_FIELDS.items()),
    ),
)
