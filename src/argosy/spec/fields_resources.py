"""The fields of `resources:` and of each of its candidates."""

from __future__ import annotations

from typing import Final

from argosy.model.scheduling import PRIORITY_CLASSES
from argosy.spec import accelerators, notation, values
from argosy.spec.leaves import LABEL_KEY, OPEN_MAP, SECONDS, SIZE, SPAN, TEXTS
from argosy.spec.notation import number
from argosy.spec.shapes import (
    AsText,
    Choice,
    Field,
    Flag,
    ListOf,
    MapOf,
    Notation,
    OneOf,
    Open,
    Table,
    Text,
    Then,
    Whole,
)

_AUTOSTOP_FIELDS: Final = (
    Field(
        "idle_minutes",
        OneOf(
            "minutes, or a duration such as `10m`",
            (
                Then(Whole(minimum=-1), lambda minutes: minutes * 60),
                Notation("a duration such as `10m`", notation.parse_minutes),
            ),
        ),
        "Minutes without work before the cluster rests; negative is never.",
        "15",
        also=("idle", "minutes", "idle_time", "timeout"),
    ),
    Field(
        "down", Flag(), "Remove the cluster instead of stopping it.", "true", also=("autodown", "terminate")
    ),
    Field(
        "wait_for",
        Choice(("jobs_and_ssh", "jobs", "gpu", "none")),
        "What counts as work: jobs, connections and GPUs at work; jobs; GPUs and connections; nothing.",
        "jobs",
    ),
    Field(
        "max_duration",
        SPAN,
        "The cluster is stopped after so long, whatever runs.",
        "8h",
        also=("max_time", "lifetime", "ttl"),
    ),
    Field("hook", Text(), "Shell commands before the stop.", "sync", later=True, verbatim=True),
    Field("hook_timeout", SECONDS, "Time for the hook.", "60", later=True),
)

_STRATEGY: Final = Notation(
    "one of `FAILOVER`, `EAGER_NEXT_REGION`, `auto`, `none`, or `own:NAME`", notation.parse_strategy
)
_RECOVERY_FIELDS: Final = (
    Field(
        "strategy",
        _STRATEGY,
        "Where to try first after a loss: the same region, the others, or what a plug-in says.",
        "EAGER_NEXT_REGION",
    ),
    Field(
        "max_restarts_on_errors",
        Whole(minimum=0, maximum=1_000_000),
        "How often to start again after the program failed. Lost nodes are always replaced.",
        "3",
        also=("max_restarts", "retries", "max_retries"),
    ),
    Field(
        "recover_on_exit_codes",
        ListOf(
            Whole(minimum=0, maximum=255, says="an exit code (0 to 255)"), one_will_do=True, says="exit codes"
        ),
        "Exit codes that are always answered with a restart.",
        "[33, 34]",
        also=("exit_codes",),
    ),
    Field(
        "at_most_once",
        Flag(),
        "Never two attempts at once: one that its server cannot reach ends itself after a minute. By "
        "default so on machines that may come back, such as SSH hosts; `false` goes on elsewhere sooner.",
        "true",
    ),
)
_RECOVERY: Final = Then(
    OneOf("a strategy or a mapping", (_STRATEGY, Table("job_recovery", _RECOVERY_FIELDS))),
    values.make_recovery,
)

_ACCELERATOR: Final = Notation(
    "an accelerator such as `A100:8`, `L4`, `A100:0.5` or `80GB+`", values.make_accelerator
)
_COUNTED: Final = MapOf(
    _ACCELERATOR, Notation("a number of accelerators", accelerators.parse_count), null_will_do=True
)

NETWORKING: Final = Table(
    "networking",
    (
        Field("vpc_name", Text(), "Private network.", "lab"),
        Field("subnet_name", Text(), "Its subnet.", "gpu"),
        Field("subnet_names", TEXTS, "Its subnets.", "[gpu]"),
        Field("security_groups", TEXTS, "Firewall groups.", "[sg-1]"),
    ),
    lenient=True,
)

EXCLUSION: Final = OneOf(
    "a place such as `aws` or `CN`, or a mapping",
    (
        Text("a place such as `aws`, `aws/us-east-1` or `CN`"),
        Table(
            "resources.not",
            (
                Field(
                    "infra",
                    Text("a place such as `aws` or `aws/us-east-1`"),
                    "A place.",
                    "aws/us-east-1",
                    also=("cloud", "provider"),
                ),
                Field(
                    "regions",
                    TEXTS,
                    "Regions, countries, `eu`, continents.",
                    "[CN, us-gov-*]",
                    also=("region", "country", "countries"),
                ),
                Field("instance_type", Text("an instance type"), "A machine; may be a pattern.", "p3.*"),
                Field("accelerators", Text("the name of an accelerator"), "An accelerator.", "T4"),
            ),
        ),
    ),
)

LOCATION: Final = Field(
    "location",
    Text("the name of a location"),
    "A site at the edge: the name of the place itself, or the one that `[[place]]` of the user's "
    "`terms.toml` gives it.",
    "factory-2",
    into="location",
    also=("site",),
)
EDGE_CONFIG: Final = Field(
    "edge_config",
    Table(
        "edge_config",
        (
            Field(
                "bandwidth_limit",
                Notation("a bandwidth such as `50Mbps`", notation.parse_bandwidth_kbps),
                "The link of the site carries at least so much.",
                "50Mbps",
                also=("bandwidth",),
            ),
            Field(
                "latency_requirements",
                Notation("a latency such as `<50ms`", notation.parse_latency_us),
                "The site answers at least so fast.",
                "<50ms",
                also=("latency",),
            ),
            Field(
                "power_constraints",
                Notation("a power such as `300W`", notation.parse_power_mw),
                "A node draws at most so much.",
                "300W",
                also=("power",),
            ),
        ),
        lenient=True,
    ),
    "What a site at the edge must be able to do. A place of which it is not known is refused.",
    "{bandwidth_limit: 50Mbps, latency_requirements: <20ms, power_constraints: 60W}",
)

_CANDIDATE: Final = (
    Field(
        "infra",
        Notation("a place such as `local` or `aws/us-east-1`", notation.parse_infra),
        "Where: `provider[/region[/zone]]`, `k8s/CONTEXT`, `slurm/CLUSTER/PARTITION`, `ssh/POOL`; `*` "
        "is anywhere.",
        "local",
        also=("provider", "platform", "backend"),
    ),
    Field(
        "cloud",
        Notation("the name of an infrastructure", notation.parse_provider),
        "Older spelling of the first part of `infra`.",
        "aws",
        also=("clouds",),
    ),
    Field(
        "region",
        Text("the name of a region", str.strip),
        "Older spelling of the second part of `infra`.",
        "us-east-1",
    ),
    Field(
        "zone",
        Text("the name of a zone", str.strip),
        "Older spelling of the third part of `infra`.",
        "us-east-1a",
    ),
    Field(
        "accelerators",
        Then(
            OneOf(
                "an accelerator such as `A100:8`, a list of them (in order), or a mapping (any)",
                (
                    _ACCELERATOR,
                    ListOf(OneOf(_ACCELERATOR.says, (_ACCELERATOR, _COUNTED)), maximum=100),
                    _COUNTED,
                ),
            ),
            values.make_accelerators,
        ),
        "Per node: `A100:8`, a part `A100:0.25`, any with memory `80GB+`; a list is in order of "
        "preference, a mapping or set is any of them.",
        "A100:8",
        aliases=("gpus",),
        also=("accelerator", "gpu", "acc", "tpu", "tpus", "num_gpus"),
    ),
    Field(
        "accelerator_args",
        Then(MapOf(Text("an option"), AsText(booleans=True), "a mapping of options"), values.make_text_pairs),
        "Options of TPUs: `runtime_version`; what else SkyPilot knows there is read and not needed.",
        "{runtime_version: tpu-vm-base}",
    ),
    Field(
        "arch",
        Choice(("x86_64", "arm64", "any")),
        "Architecture of the processors; without it `x86_64`, unless an instance type or the model of an "
        "accelerator is named.",
        "arm64",
        into="arch",
        also=("architecture", "cpu_arch"),
    ),
    Field(
        "cpus",
        Notation(
            "a number of CPUs such as `4` or `4+`",
            notation.parse_cpus_text,
            pattern=r"^\s*[0-9]*\.?[0-9]+\+?\s*$",
        ),
        "CPUs per node: `4+` is at least, `4` exactly.",
        "4+",
        into="cpus",
        show=lambda bound: number(notation.render_cpus(bound)),
        also=("cpu", "vcpus", "num_cpus", "cores"),
    ),
    Field(
        "memory",
        Notation("an amount of memory such as `16`, `16+`, `512MB` or `4x`", notation.parse_memory),
        "Memory per node in GB: `16+` is at least, `16` exactly, `4x` four times the CPUs.",
        "16+",
        also=("mem", "ram"),
    ),
    Field(
        "instance_type",
        Text("the name of an instance type"),
        "Exactly this type of machine.",
        "p4d.24xlarge",
        also=("instance", "machine_type", "flavor"),
    ),
    Field(
        "use_spot",
        Flag(),
        "Cheaper capacity that can be taken away.",
        "true",
        into="use_spot",
        also=("spot", "preemptible"),
    ),
    Field(
        "job_recovery",
        _RECOVERY,
        "How a managed job recovers.",
        "{strategy: FAILOVER, max_restarts_on_errors: 3, recover_on_exit_codes: [33]}",
        also=("recovery",),
    ),
    Field("spot_recovery", _RECOVERY, "Older spelling of `job_recovery`.", "FAILOVER"),
    Field(
        "disk_size",
        SIZE,
        "Disk per node, in GB unless it says otherwise.",
        "100",
        into="disk_size_bytes",
        show=notation.render_size,
        also=("disk", "storage", "disk_size_gb"),
    ),
    Field("ephemeral_storage", SIZE, "Room on the node's own disk that a pod may use.", "200", later=True),
    Field(
        "disk_tier",
        Choice(("low", "medium", "high", "ultra", "best")),
        "Class of the disk, where the place has such classes. Nothing is known of it for any offer, so "
        "nothing is chosen by it.",
        "high",
        into="disk_tier",
    ),
    Field(
        "local_disk",
        Notation("a local disk such as `nvme:500+`, `500` or `nvme`", notation.parse_local_disk),
        "Disk in the machine itself, per node, in GB of 10^9 bytes: `500+` is at least, `500` exactly, "
        "`nvme` alone any. A machine "
        "of which it is not known is refused. The kind (`nvme`, `ssd`) is kept, not checked: price lists "
        "tell sizes only.",
        "nvme:500+",
    ),
    Field(
        "network_tier",
        Choice(("standard", "best")),
        "Class of the network; `best` is RDMA where there is any. Nothing is known of it for any offer, "
        "so nothing is chosen by it.",
        "best",
        into="network_tier",
    ),
    Field(
        "ports",
        Then(
            ListOf(
                Notation(
                    "a port such as `8000` or `8000-8010`",
                    notation.parse_port,
                    pattern=r"^\s*[0-9]+\s*(-\s*[0-9]+)?\s*$",
                ),
                one_will_do=True,
                says="a port such as `8000` or `8000-8010`, or a list of them",
            ),
            values.make_unique,
        ),
        "Ports that others may reach.",
        "[8000, 9000-9010]",
        into="ports",
        show=lambda ports: [number(port) for port in ports],
        also=("port", "expose"),
    ),
    Field(
        "image_id",
        OneOf(
            "an image such as `docker:ubuntu:24.04`, or a mapping from region to image",
            (
                Text("an image such as `docker:ubuntu:24.04`"),
                MapOf(Text("a region"), Text("an image"), "a mapping from region to image"),
            ),
        ),
        "Container image (`docker:IMAGE`) or machine image.",
        "docker:ubuntu:24.04",
        also=("image", "container", "docker", "container_image", "docker_image"),
    ),
    Field(
        "labels",
        Then(MapOf(LABEL_KEY, AsText("a text"), "a mapping of texts"), values.make_text_pairs),
        "Tags on what is made.",
        "{team: vision}",
        also=("tags", "label"),
    ),
    Field(
        "autostop",
        Then(
            OneOf(
                "minutes, a duration such as `10m`, a boolean or a mapping",
                (
                    Flag(),
                    Then(Whole(minimum=-1), lambda minutes: minutes * 60),
                    Notation("a duration such as `10m`", notation.parse_minutes),
                    Table("autostop", _AUTOSTOP_FIELDS),
                ),
            ),
            values.make_autostop,
        ),
        "Stop the cluster when it has been idle: minutes, `10m`, `true` (5 minutes), or a mapping.",
        "{idle_minutes: 10, down: true, wait_for: jobs}",
        keep=True,
        also=("auto_stop", "idle_timeout", "autodown"),
    ),
    Field(
        "priority",
        Whole(minimum=-1000, maximum=1000, says="a whole number from -1000 to 1000"),
        "Order among what waits: higher goes first.",
        "100",
        into="priority",
    ),
    Field(
        "priority_class",
        Choice(PRIORITY_CLASSES),
        "Priority by name, above every `priority` of the next class. `batch` is what jobs have, "
        "`system` is for administrators.",
        "interactive",
        into="priority_class",
    ),
    Field(
        "hedge",
        Flag(),
        "Where machines have not come up after the typical time, order others elsewhere as well; the "
        "first that are up are used, the others are given back.",
        "true",
        into="hedge",
        also=("hedged", "hedging"),
    ),
    Field(
        "preset",
        Text("the name of a preset", str.strip),
        "Resources by a name that the administrator gave (`argosy pool presets`); what stands beside "
        "it goes before it.",
        "small",
        into="preset",
        also=("profile", "size", "template"),
    ),
    Field(
        "max_hourly_cost",
        Notation("dollars per hour such as `40`", values.make_price),
        "Offers above this price, for all nodes together, are refused.",
        "40",
        into="max_hourly_micro_usd",
        show=lambda price: number(notation.render_price_number(price)),
        also=("max_cost", "budget", "max_price", "price_cap"),
    ),
    Field(
        "volumes",
        ListOf(OPEN_MAP, says="a list of mappings"),
        "Disks of the cloud to attach.",
        "[{name: disk-1, path: /mnt/disk}]",
        later=True,
    ),
    Field(
        "regions",
        TEXTS,
        "Where it may run, any of them: regions, countries (`KR`), `eu`, continents, infrastructures. "
        "A place that is not "
        "known to be in a named country is refused.",
        "[eu, us-west-2]",
        into="areas",
        show=list,
        also=("allowed_regions", "residency"),
    ),
    Field(
        "not",
        ListOf(EXCLUSION, one_will_do=True, says="a mapping or a list of mappings"),
        "What must not be chosen; each entry rules out what all of its fields name.",
        "{infra: aws}",
        also=("exclude", "blocked"),
    ),
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
        "networking",
        NETWORKING,
        "Network that the nodes join, by names or ids; places that have none to choose from are refused.",
        "{vpc_name: lab, subnet_name: gpu, security_groups: [sg-1]}",
        also=("network",),
    ),
)

#: What SkyPilot itself writes beside the others when it stores a task; not its `_docker_login_config`, which
#: has a password.
_STORED: Final = (
    *(
        Field(name, Open(), "Written by SkyPilot into stored tasks.", "true", later=True)
        for name in (
            "_cluster_config_overrides",
            "_is_image_managed",
            "_no_missing_accel_warnings",
            "_requires_fuse",
        )
    ),
)

CANDIDATE: Final = Table("resources", (*_CANDIDATE, *_STORED))

RESOURCES: Final = Table(
    "resources",
    (
        *_CANDIDATE,
        *_STORED,
        Field(
            "any_of",
            ListOf(CANDIDATE, maximum=100, says="a list of resources"),
            "Candidates; the cheapest that can be had is taken. Each adds to the fields beside `any_of`.",
            "[{infra: local}, {accelerators: L4}]",
            also=("anyof", "one_of"),
        ),
        Field(
            "ordered",
            ListOf(CANDIDATE, maximum=100, says="a list of resources"),
            "Candidates in order of preference.",
            "[{accelerators: H100}, {accelerators: A100}]",
            also=("ordered_list", "prefer"),
        ),
    ),
)
