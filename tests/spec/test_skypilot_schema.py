"""Every field of SkyPilot's task schema (0.14.1: task, resources, storage, service, pool, config, several
documents) is executed, or accepted and named in a warning; what it says is still there afterwards. The values
are ours."""

from __future__ import annotations

import re

import pytest

from argosy.spec import parse_task, render_task
from argosy.spec.fields import TASK
from argosy.spec.fields_later import CONFIG, POOL, SERVICE, STORAGE
from argosy.spec.fields_resources import RESOURCES
from argosy.spec.shapes import Table

#: Field, the YAML beside `run:`, and words that must be found in what is rendered.
TASK_FIELDS = [
    ("name", "name: train", "train"),
    ("workdir", "workdir: ./code", "./code"),
    ("workdir.url", "workdir: {url: https://example.com/r.git, ref: main}", "https://example.com/r.git main"),
    ("setup", "setup: pip list", "pip list"),
    ("num_nodes", "num_nodes: 3", "3"),
    ("envs", "envs: {EPOCHS: 10}", "EPOCHS 10"),
    ("secrets", "secrets: {TOKEN: abc}", "TOKEN"),
    ("managed_secrets", "managed_secrets: [token, {key: {mount_path: /run/key}}]", "token /run/key"),
    ("file_mounts", "file_mounts: {/data: ./data}", "/data ./data"),
    (
        "volumes",
        "volumes: {/mnt/a: disk, /mnt/b: {name: b, size: 10, sub_path: x, config: {host_path: /h}}}",
        "disk /h",
    ),
    ("event_callback", "event_callback: notify.sh", "notify.sh"),
    ("api_server_access", "api_server_access: true", "true"),
    ("inputs", "inputs: {s3://in: 5}", "s3://in 5"),
    ("outputs", "outputs: {gs://out: 7}", "gs://out 7"),
    ("pool", "pool: {workers: 2}", "2"),
    ("service", "service: {replicas: 2}", "2"),
    ("config", "config: {docker: {run_options: [--ipc=host]}}", "--ipc=host"),
    ("experimental", "experimental: {config_overrides: {docker: {run_options: [-x]}}}", "-x"),
    ("file_mounts_mapping", "file_mounts_mapping: {a: b}", "a b"),
    ("volume_mounts", "volume_mounts: [{path: /v}]", "/v"),
    ("_metadata", "_metadata: {a: b}", "a b"),
    ("resources", "resources: {cpus: 2+}", "2+"),
]

URLS = (
    "s3://b",
    "gs://b",
    "r2://b",
    "https://acc.blob.core.windows.net/b",
    "cos://b",
    "oci://b",
    "nebius://b",
    "cw://b",
    "hf://b",
    "azblob://b",
)

STORAGE_FIELDS = [
    ("name", "name: bucket", "bucket"),
    ("source", "source: [./a, ./b]", "./a ./b"),
    ("store", "name: bucket, store: r2", "r2"),
    ("persistent", "name: bucket, persistent: false", "persistent: false"),
    *[("mode", f"source: s3://b, mode: {mode}", mode) for mode in ("MOUNT", "MOUNT_CACHED", "COPY")],
    ("type", "name: bucket, type: bucket", "type"),
    *[
        ("config", f"name: bucket, config: {{mount_cached: {{{option}}}}}", option.split(":")[0])
        for option in (
            "transfers: 4",
            "buffer_size: 16M",
            "vfs_cache_max_size: 10G",
            "vfs_cache_max_age: 1h",
            "vfs_read_ahead: 128M",
            "vfs_read_chunk_size: 32M",
            "vfs_read_chunk_streams: 4",
            "vfs_write_back: 1s",
            "read_only: true",
        )
    ],
    ("config", "source: hf://b, config: {mount: {read_only: true, hf_mount_args: --verbose}}", "--verbose"),
    *[
        (name, f"name: bucket, {name}: true", name)
        for name in ("_bucket_sub_path", "_force_delete", "_is_sky_managed")
    ],
]

RESOURCE_FIELDS = [
    *[
        ("infra", f"infra: {infra}", infra.removesuffix("/*").replace("k8s", "kubernetes"))
        for infra in (
            "aws",
            "aws/us-east-1/us-east-1a",
            "aws/*/us-east-1a",
            "k8s/lab",
            "slurm/hpc/gpu",
            "ssh/pool",
        )
    ],
    ("cloud", "cloud: aws, region: us-east-1, zone: us-east-1a", "aws/us-east-1/us-east-1a"),
    ("region", "region: us-east-1", "us-east-1"),
    ("zone", "cloud: gcp, zone: us-central1-a", "us-central1-a"),
    ("accelerators", "accelerators: H100:8", "H100:8"),
    ("accelerators", "accelerators: {L4: 1}", "L4:1"),
    ("accelerators", "accelerators: [H100:8, A100:8]", "ordered H100:8 A100:8"),
    ("accelerators", "accelerators: {H100:8, A100:8}", "any_of H100:8 A100:8"),
    ("accelerators", "accelerators: 80GB+", "80GB+"),
    (
        "accelerator_args",
        "accelerators: tpu-v4-8, accelerator_args: {runtime_version: r, tpu_vm: true, tpu_name: t, "
        "gcp_queued_resource: true}",
        "runtime_version tpu_vm tpu_name gcp_queued_resource",
    ),
    ("cpus", "cpus: 4", "4"),
    ("memory", "memory: 4x, cpus: 2", "4x"),
    ("instance_type", "instance_type: p4d.24xlarge", "p4d.24xlarge"),
    ("use_spot", "use_spot: true", "use_spot"),
    (
        "job_recovery",
        "job_recovery: {strategy: EAGER_NEXT_REGION, max_restarts_on_errors: 3, recover_on_exit_codes: [33]}",
        "EAGER_NEXT_REGION 3 33",
    ),
    ("spot_recovery", "spot_recovery: FAILOVER", "FAILOVER"),
    ("any_of", "any_of: [{cpus: 2}, {cpus: 4}]", "any_of"),
    ("ordered", "ordered: [{cpus: 4}, {cpus: 2}]", "ordered"),
    ("disk_size", "disk_size: 100", "100"),
    *[("disk_tier", f"disk_tier: {tier}", tier) for tier in ("low", "medium", "high", "ultra", "best")],
    ("local_disk", "local_disk: nvme:500+", "nvme:500+"),
    ("network_tier", "network_tier: best", "best"),
    ("ephemeral_storage", "ephemeral_storage: 200", "200"),
    ("ports", "ports: [8000, 9000-9010]", "8000 9000-9010"),
    ("image_id", "image_id: docker:ubuntu:24.04", "docker:ubuntu:24.04"),
    ("image_id", "infra: aws, image_id: {us-east-1: ami-1}", "us-east-1 ami-1"),
    ("labels", "labels: {team: vision}", "team vision"),
    (
        "volumes",
        "volumes: [{name: d, path: /mnt, disk_size: 10, disk_tier: best, auto_delete: true, attach_mode: "
        "read_only, storage_type: instance}]",
        "/mnt attach_mode auto_delete",
    ),
    ("autostop", "autostop: 10", "10"),
    (
        "autostop",
        "autostop: {idle_minutes: 10, down: true, wait_for: jobs, hook: sync, hook_timeout: 60}",
        "down jobs sync hook_timeout",
    ),
    ("priority", "priority: -1000", "-1000"),
    ("priority_class", "priority_class: batch", "batch"),
    ("max_hourly_cost", "max_hourly_cost: 4.5", "4.5"),
    *[
        (name, f"{name}: true", name)
        for name in (
            "_cluster_config_overrides",
            "_is_image_managed",
            "_no_missing_accel_warnings",
            "_requires_fuse",
        )
    ],
]

SERVICE_FIELDS = [
    ("readiness_probe", "readiness_probe: /health", "/health"),
    *[
        ("readiness_probe", f"readiness_probe: {{path: /h, {option}}}", option.split(":")[0])
        for option in (
            "post_data: {a: 1}",
            "headers: {X-A: b}",
            "initial_delay_seconds: 60",
            "timeout_seconds: 5",
            "endpoint_probe_interval_seconds: 10",
            "consecutive_failure_threshold_timeout: 30",
        )
    ],
    ("replicas", "replicas: 2", "replicas"),
    *[
        ("replica_policy", f"replica_policy: {{min_replicas: 1, {option}}}", option.split(":")[0])
        for option in (
            "max_replicas: 3",
            "num_overprovision: 1",
            "target_qps_per_replica: 2.5",
            "target_qps_per_replica: {A100: 5}",
            "upscale_delay_seconds: 300",
            "downscale_delay_seconds: 1200",
            "dynamic_ondemand_fallback: true",
            "base_ondemand_fallback_replicas: 1",
            "spot_placer: dynamic_fallback",
        )
    ],
    *[
        ("load_balancing_policy", f"load_balancing_policy: {name}", name)
        for name in ("round_robin", "least_load", "instance_aware_least_load")
    ],
    ("load_balancer", "load_balancer: {stream_timeout_seconds: 120}", "stream_timeout_seconds"),
    ("ports", "ports: 8000", "8000"),
    ("tls", "tls: {keyfile: k.pem, certfile: c.pem}", "k.pem c.pem"),
    ("pool", "pool: {workers: 2}", "pool workers"),
    ("workers", "workers: 2", "workers"),
]

POOL_FIELDS = (
    "workers",
    "min_workers",
    "max_workers",
    "queue_length_threshold",
    "upscale_delay_seconds",
    "downscale_delay_seconds",
)

CONFIG_FIELDS = [
    ("hooks", "hooks: [{run: sync, events: [stop, preemption, down], timeout: 60}]", "sync preemption"),
    ("active_workspace", "active_workspace: team", "team"),
    ("docker", "docker: {run_options: [-x]}", "-x"),
    ("nvidia_gpus", "nvidia_gpus: {disable_ecc: true}", "disable_ecc"),
    *[
        ("kubernetes", f"kubernetes: {{{name}: {{a: 1}}}}", name)
        for name in (
            "pod_config",
            "custom_metadata",
            "provision_timeout",
            "dws",
            "kueue",
            "quota",
            "remote_identity",
            "enable_docker",
            "set_pod_resource_limits",
        )
    ],
    ("ssh", "ssh: {pod_config: {a: 1}}", "pod_config"),
    *[
        ("gcp", f"gcp: {{{name}: x}}", name)
        for name in (
            "vpc_name",
            "subnet_names",
            "managed_instance_group",
            "enable_gvnic",
            "enable_gpu_direct",
            "placement_policy",
        )
    ],
    ("azure", "azure: {resource_group_vm: g}", "resource_group_vm"),
    ("vast", "vast: {datacenter_only: true}", "datacenter_only"),
    *[
        ("slurm", f"slurm: {{{name}: {{a: b}}}}", name)
        for name in ("sbatch_options", "quota", "cpu_partition")
    ],
    ("aws", "aws: {vpc_name: v}", "vpc_name"),
    ("oci", "oci: {region_configs: {a: b}}", "region_configs"),
    ("nebius", "nebius: {use_internal_ips: true}", "use_internal_ips"),
    ("runpod", "runpod: {allowed_cuda_versions: ['12.4']}", "allowed_cuda_versions"),
    ("local", "local: {nodes: 1}", "nodes"),
]

CASES = [
    *[(TASK, name, text, words) for name, text, words in TASK_FIELDS],
    *[(STORAGE, name, f"file_mounts: {{/data: {{{text}}}}}", words) for name, text, words in STORAGE_FIELDS],
    *[(RESOURCES, name, f"resources: {{{text}}}", words) for name, text, words in RESOURCE_FIELDS],
    *[(SERVICE, name, f"service: {{{text}}}", words) for name, text, words in SERVICE_FIELDS],
    *[
        (POOL, name, f"pool: {{workers: 1, {name}: 5}}" if name != "workers" else "pool: {workers: 5}", name)
        for name in POOL_FIELDS
    ],
    *[(CONFIG, name, f"config: {{{text}}}", words) for name, text, words in CONFIG_FIELDS],
]


@pytest.mark.parametrize(
    ("table", "name", "text", "words"), CASES, ids=[f"{text[:60]}" for _, _, text, _ in CASES]
)
def test_a_field_is_executed_or_named(table: Table, name: str, text: str, words: str) -> None:
    field = table.field(name.partition(".")[0])
    assert field is not None
    parsed = parse_task(f"run: x\n{text}\n", source="task.yaml")
    (task,) = parsed.tasks
    rendered = render_task(task)
    assert [word for word in words.split() if word not in rendered] == []
    told = [*(one.what for one in parsed.warnings if not one.ignored)]
    warned = " ".join([*re.findall(r"`([^`]*)`", " ".join(told)), *task.not_executed])
    assert task.not_executed == tuple(sorted(name for one in parsed.warnings for name in one.ignored))
    top = {SERVICE: f"service.{name}", POOL: "pool", CONFIG: "config"}.get(table, name.partition(".")[0])
    if field.later or table is POOL:
        assert top in warned, parsed.warnings
        assert task.not_executed
    again = parse_task(rendered).tasks[0]
    assert render_task(again) == rendered


@pytest.mark.parametrize("url", URLS)
def test_every_kind_of_storage_is_taken_and_named(url: str) -> None:
    for text in (f"file_mounts: {{/data: {url}}}", f"file_mounts: {{/data: {{source: {url}, mode: MOUNT}}}}"):
        parsed = parse_task(f"run: x\n{text}\n")
        (task,) = parsed.tasks
        assert [mount.sources for mount in task.storage_mounts] == [(url,)]
        assert url in render_task(task)


@pytest.mark.parametrize(
    ("table", "cases"),
    [(TASK, TASK_FIELDS), (STORAGE, STORAGE_FIELDS), (RESOURCES, RESOURCE_FIELDS), (SERVICE, SERVICE_FIELDS), (CONFIG, CONFIG_FIELDS)],  # noqa: E501
    ids=["task", "storage", "resources", "service", "config"],
)  # fmt: skip
def test_the_other_fields_are_our_own(table: Table, cases: list[tuple[str, str, str]]) -> None:
    """What the tables have and these lists have not is not SkyPilot's: a new field must not hide among
    them."""
    own = {
        "": {
            "run",
            "after",
            "when",
            "matrix",
            "parallel",
            "fail_fast",
            "notify",
            "hooks",
            "checkpoints",
            "max_duration",
            "grace",
            "scheduling",
            "deadline",
            "estimated_hours",
            "progress",
            "secret_files",
            "objective",
            "networking",
            "location",
            "edge_config",
            "quantum_backend",
            "sync",
            "storage_mounts",
            "function",
            "ray",
        },
        "config": {"ray"},
        "file_mounts": {"encryption"},
        "service": {
            *(
                "affinity",
                "bootstrap_port",
                "domain",
                "drain_seconds",
                "grpc",
                "model",
                "models",
                "endpoint",
                "prefill",
                "share",
            )
        },
        "resources": {
            "arch",
            "regions",
            "not",
            "location",
            "edge_config",
            "quantum_backend",
            "networking",
            "preset",
            "hedge",
            "scheduling",
        },
    }.get(table.name, set())
    known = {name.partition(".")[0] for name, _, _ in cases}
    assert {field.name for field in table.fields} - known <= own


PIPELINE = """\
name: nightly
---
name: prep
run: a
---
name: train
run: b
"""
GROUP = """\
name: together
execution: parallel
primary_tasks: [train]
termination_delay: 30s
inter_connection: true
---
name: train
run: a
---
name: watch
run: b
"""


def test_several_documents_are_a_pipeline_or_a_group() -> None:
    pipeline, group = parse_task(PIPELINE), parse_task(GROUP)
    assert (pipeline.name, pipeline.execution) == ("nightly", "serial")
    assert [task.name for task in pipeline.tasks] == ["prep", "train"]
    assert (group.name, group.execution) == ("together", "parallel")
    for word in ("primary_tasks", "termination_delay", "inter_connection"):
        assert word in group.extra
    assert not pipeline.warnings and not group.warnings
    assert pipeline.layout is not None and [each.after for each in pipeline.layout.members] == [(), (0,)]
    assert group.layout is not None and group.layout.together and group.layout.primary
