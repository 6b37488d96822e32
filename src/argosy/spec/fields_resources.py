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
        name="idle_minutes",
        shape=OneOf(
            says="minutes, or a duration such as `10m`",
            shapes=(
                Then(shape=Whole(minimum=-1), make=lambda minutes: minutes * 60),
                Notation(says="a duration such as `10m`", parse=notation.parse_minutes),
            ),
        ),
        doc="Minutes without work before the cluster rests; negative is never.",
        example="15",
        also=("idle", "minutes", "idle_time", "timeout"),
    ),
    Field(
        name="down",
        shape=Flag(),
        doc="Remove the cluster instead of stopping it.",
        example="true",
        also=("autodown", "terminate"),
    ),
    Field(
        name="wait_for",
        shape=Choice(words=("jobs_and_ssh", "jobs", "gpu", "none")),
        doc="What counts as work: jobs, connections and GPUs at work; jobs; GPUs and connections; nothing.",
        example="jobs",
    ),
    Field(
        name="max_duration",
        shape=SPAN,
        doc="The cluster is stopped after so long, whatever runs.",
        example="8h",
        also=("max_time", "lifetime", "ttl"),
    ),
    Field(
        name="hook",
        shape=Text(),
        doc="Shell commands before the stop.",
        example="sync",
        later=True,
        verbatim=True,
    ),
    Field(name="hook_timeout", shape=SECONDS, doc="Time for the hook.", example="60", later=True),
)

_STRATEGY: Final = Notation(
    says="one of `FAILOVER`, `EAGER_NEXT_REGION`, `auto`, `none`, or `own:NAME`",
    parse=notation.parse_strategy,
)
_RECOVERY_FIELDS: Final = (
    Field(
        name="strategy",
        shape=_STRATEGY,
        doc="Where to try first after a loss: the same region, the others, or what a plug-in says.",
        example="EAGER_NEXT_REGION",
    ),
    Field(
        name="max_restarts_on_errors",
        shape=Whole(minimum=0, maximum=1_000_000),
        doc="How often to start again after the program failed. Lost nodes are always replaced.",
        example="3",
        also=("max_restarts", "retries", "max_retries"),
    ),
    Field(
        name="recover_on_exit_codes",
        shape=ListOf(
            item=Whole(minimum=0, maximum=255, says="an exit code (0 to 255)"),
            one_will_do=True,
            says="exit codes",
        ),
        doc="Exit codes that are always answered with a restart.",
        example="[33, 34]",
        also=("exit_codes",),
    ),
    Field(
        name="at_most_once",
        shape=Flag(),
        doc="Never two attempts at once: one that its server cannot reach ends itself after a minute. By "
        "default so on machines that may come back, such as SSH hosts; `false` goes on elsewhere sooner.",
        example="true",
    ),
)
_RECOVERY: Final = Then(
    shape=OneOf(
        says="a strategy or a mapping",
        shapes=(_STRATEGY, Table(name="job_recovery", fields=_RECOVERY_FIELDS)),
    ),
    make=values.make_recovery,
)

_ACCELERATOR: Final = Notation(
    says="an accelerator such as `A100:8`, `L4`, `A100:0.5` or `80GB+`", parse=values.make_accelerator
)

NETWORKING: Final = Table(
    name="networking",
    lenient=True,
    fields=(
        Field(name="vpc_name", shape=Text(), doc="Private network.", example="lab"),
        Field(name="subnet_name", shape=Text(), doc="Its subnet.", example="gpu"),
        Field(name="subnet_names", shape=TEXTS, doc="Its subnets.", example="[gpu]"),
        Field(name="security_groups", shape=TEXTS, doc="Firewall groups.", example="[sg-1]"),
    ),
)

EXCLUSION: Final = OneOf(
    says="a place such as `aws` or `CN`, or a mapping",
    shapes=(
        Text(says="a place such as `aws`, `aws/us-east-1` or `CN`"),
        Table(
            name="resources.not",
            fields=(
                Field(
                    name="infra",
                    shape=Text(says="a place such as `aws` or `aws/us-east-1`"),
                    doc="A place.",
                    example="aws/us-east-1",
                    also=("cloud", "provider"),
                ),
                Field(
                    name="regions",
                    shape=TEXTS,
                    doc="Regions, countries, `eu`, continents.",
                    example="[CN, us-gov-*]",
                    also=("region", "country", "countries"),
                ),
                Field(
                    name="instance_type",
                    shape=Text(says="an instance type"),
                    doc="A machine; may be a pattern.",
                    example="p3.*",
                ),
                Field(
                    name="accelerators",
                    shape=Text(says="the name of an accelerator"),
                    doc="An accelerator.",
                    example="T4",
                ),
            ),
        ),
    ),
)

LOCATION: Final = Field(
    name="location",
    into="location",
    shape=Text(says="the name of a location"),
    doc="A site at the edge: the name of the place itself, or the one that `[[place]]` of the user's "
    "`terms.toml` gives it.",
    example="factory-2",
    also=("site",),
)
EDGE_CONFIG: Final = Field(
    name="edge_config",
    shape=Table(
        name="edge_config",
        lenient=True,
        fields=(
            Field(
                name="bandwidth_limit",
                shape=Notation(says="a bandwidth such as `50Mbps`", parse=notation.parse_bandwidth_kbps),
                doc="The link of the site carries at least so much.",
                example="50Mbps",
                also=("bandwidth",),
            ),
            Field(
                name="latency_requirements",
                shape=Notation(says="a latency such as `<50ms`", parse=notation.parse_latency_us),
                doc="The site answers at least so fast.",
                example="<50ms",
                also=("latency",),
            ),
            Field(
                name="power_constraints",
                shape=Notation(says="a power such as `300W`", parse=notation.parse_power_mw),
                doc="A node draws at most so much.",
                example="300W",
                also=("power",),
            ),
        ),
    ),
    doc="What a site at the edge must be able to do. A place of which it is not known is refused.",
    example="{bandwidth_limit: 50Mbps, latency_requirements: <20ms, power_constraints: 60W}",
)

_CANDIDATE: Final = (
    Field(
        name="infra",
        shape=Notation(says="a place such as `local` or `aws/us-east-1`", parse=notation.parse_infra),
        doc="Where: `provider[/region[/zone]]`, `k8s/CONTEXT`, `slurm/CLUSTER/PARTITION`, `ssh/POOL`; `*` "
        "is anywhere.",
        example="local",
        also=("provider", "platform", "backend"),
    ),
    Field(
        name="cloud",
        shape=Notation(says="the name of an infrastructure", parse=notation.parse_provider),
        doc="Older spelling of the first part of `infra`.",
        example="aws",
        also=("clouds",),
    ),
    Field(
        name="region",
        shape=Text(says="the name of a region", check=str.strip),
        doc="Older spelling of the second part of `infra`.",
        example="us-east-1",
    ),
    Field(
        name="zone",
        shape=Text(says="the name of a zone", check=str.strip),
        doc="Older spelling of the third part of `infra`.",
        example="us-east-1a",
    ),
    Field(
        name="accelerators",
        shape=Then(
            shape=OneOf(
                says="an accelerator such as `A100:8`, a list of them (in order), or a mapping (any)",
                shapes=(
                    _ACCELERATOR,
                    ListOf(item=_ACCELERATOR, maximum=100),
                    MapOf(
                        key=_ACCELERATOR,
                        value=Notation(says="a number of accelerators", parse=accelerators.parse_count),
                        null_will_do=True,
                    ),
                ),
            ),
            make=values.make_accelerators,
        ),
        doc="Per node: `A100:8`, a part `A100:0.25`, any with memory `80GB+`; a list is in order of "
        "preference, a mapping or set is any of them.",
        example="A100:8",
        aliases=("gpus",),
        also=("accelerator", "gpu", "acc", "tpu", "tpus", "num_gpus"),
    ),
    Field(
        name="accelerator_args",
        shape=Then(
            shape=MapOf(key=Text(says="an option"), value=AsText(), says="a mapping of options"),
            make=values.make_text_pairs,
        ),
        doc="Options of TPUs: `runtime_version`; what else SkyPilot knows there is read and not needed.",
        example="{runtime_version: tpu-vm-base}",
    ),
    Field(
        name="arch",
        into="arch",
        shape=Choice(words=("x86_64", "arm64", "any")),
        doc="Architecture of the processors; without it `x86_64`, unless an instance type or the model of an "
        "accelerator is named.",
        example="arm64",
        also=("architecture", "cpu_arch"),
    ),
    Field(
        name="cpus",
        into="cpus",
        show=lambda bound: number(notation.render_cpus(bound)),
        shape=Notation(
            says="a number of CPUs such as `4` or `4+`",
            parse=notation.parse_cpus_text,
            pattern=r"^\s*[0-9]*\.?[0-9]+\+?\s*$",
        ),
        doc="CPUs per node: `4+` is at least, `4` exactly.",
        example="4+",
        also=("cpu", "vcpus", "num_cpus", "cores"),
    ),
    Field(
        name="memory",
        shape=Notation(
            says="an amount of memory such as `16`, `16+`, `512MB` or `4x`", parse=notation.parse_memory
        ),
        doc="Memory per node in GB: `16+` is at least, `16` exactly, `4x` four times the CPUs.",
        example="16+",
        also=("mem", "ram"),
    ),
    Field(
        name="instance_type",
        shape=Text(says="the name of an instance type"),
        doc="Exactly this type of machine.",
        example="p4d.24xlarge",
        also=("instance", "machine_type", "flavor"),
    ),
    Field(
        name="use_spot",
        into="use_spot",
        shape=Flag(),
        doc="Cheaper capacity that can be taken away.",
        example="true",
        also=("spot", "preemptible"),
    ),
    Field(
        name="job_recovery",
        shape=_RECOVERY,
        doc="How a managed job recovers.",
        example="{strategy: FAILOVER, max_restarts_on_errors: 3, recover_on_exit_codes: [33]}",
        also=("recovery",),
    ),
    Field(name="spot_recovery", shape=_RECOVERY, doc="Older spelling of `job_recovery`.", example="FAILOVER"),
    Field(
        name="disk_size",
        into="disk_size_bytes",
        show=notation.render_size,
        shape=SIZE,
        doc="Disk per node, in GB unless it says otherwise.",
        example="100",
        also=("disk", "storage", "disk_size_gb"),
    ),
    Field(
        name="ephemeral_storage",
        shape=SIZE,
        doc="Room on the node's own disk that a pod may use.",
        example="200",
        later=True,
    ),
    Field(
        name="disk_tier",
        into="disk_tier",
        shape=Choice(words=("low", "medium", "high", "ultra", "best")),
        doc="Class of the disk, where the place has such classes. Nothing is known of it for any offer, so "
        "nothing is chosen by it.",
        example="high",
    ),
    Field(
        name="local_disk",
        shape=Notation(
            says="a local disk such as `nvme:500+`, `500` or `nvme`", parse=notation.parse_local_disk
        ),
        doc="Disk in the machine itself, per node, in GB of 10^9 bytes: `500+` is at least, `500` exactly, "
        "`nvme` alone any. A machine "
        "of which it is not known is refused. The kind (`nvme`, `ssd`) is kept, not checked: price lists "
        "tell sizes only.",
        example="nvme:500+",
    ),
    Field(
        name="network_tier",
        into="network_tier",
        shape=Choice(words=("standard", "best")),
        doc="Class of the network; `best` is RDMA where there is any. Nothing is known of it for any offer, "
        "so nothing is chosen by it.",
        example="best",
    ),
    Field(
        name="ports",
        into="ports",
        show=lambda ports: [number(port) for port in ports],
        shape=Then(
            shape=ListOf(
                item=Notation(
                    says="a port such as `8000` or `8000-8010`",
                    parse=notation.parse_port,
                    pattern=r"^\s*[0-9]+\s*(-\s*[0-9]+)?\s*$",
                ),
                one_will_do=True,
                says="a port such as `8000` or `8000-8010`, or a list of them",
            ),
            make=values.make_unique,
        ),
        doc="Ports that others may reach.",
        example="[8000, 9000-9010]",
        also=("port", "expose"),
    ),
    Field(
        name="image_id",
        shape=OneOf(
            says="an image such as `docker:ubuntu:24.04`, or a mapping from region to image",
            shapes=(
                Text(says="an image such as `docker:ubuntu:24.04`"),
                MapOf(
                    key=Text(says="a region"),
                    value=Text(says="an image"),
                    says="a mapping from region to image",
                ),
            ),
        ),
        doc="Container image (`docker:IMAGE`) or machine image.",
        example="docker:ubuntu:24.04",
        also=("image", "container", "docker", "container_image", "docker_image"),
    ),
    Field(
        name="labels",
        shape=Then(
            shape=MapOf(key=LABEL_KEY, value=AsText(says="a text"), says="a mapping of texts"),
            make=values.make_text_pairs,
        ),
        doc="Tags on what is made.",
        example="{team: vision}",
        also=("tags", "label"),
    ),
    Field(
        name="autostop",
        shape=Then(
            shape=OneOf(
                says="minutes, a duration such as `10m`, a boolean or a mapping",
                shapes=(
                    Flag(),
                    Then(shape=Whole(minimum=-1), make=lambda minutes: minutes * 60),
                    Notation(says="a duration such as `10m`", parse=notation.parse_minutes),
                    Table(name="autostop", fields=_AUTOSTOP_FIELDS),
                ),
            ),
            make=values.make_autostop,
        ),
        keep=True,
        doc="Stop the cluster when it has been idle: minutes, `10m`, `true` (5 minutes), or a mapping.",
        example="{idle_minutes: 10, down: true, wait_for: jobs}",
        also=("auto_stop", "idle_timeout", "autodown"),
    ),
    Field(
        name="priority",
        into="priority",
        shape=Whole(minimum=-1000, maximum=1000, says="a whole number from -1000 to 1000"),
        doc="Order among what waits: higher goes first.",
        example="100",
    ),
    Field(
        name="priority_class",
        into="priority_class",
        shape=Choice(words=PRIORITY_CLASSES),
        doc="Priority by name, above every `priority` of the next class. `batch` is what jobs have, "
        "`system` is for administrators.",
        example="interactive",
    ),
    Field(
        name="hedge",
        into="hedge",
        shape=Flag(),
        doc="Where machines have not come up after the typical time, order others elsewhere as well; the "
        "first that are up are used, the others are given back.",
        example="true",
        also=("hedged", "hedging"),
    ),
    Field(
        name="preset",
        into="preset",
        shape=Text(says="the name of a preset", check=str.strip),
        doc="Resources by a name that the administrator gave (`argosy pool presets`); what stands beside "
        "it goes before it.",
        example="small",
        also=("profile", "size", "template"),
    ),
    Field(
        name="max_hourly_cost",
        into="max_hourly_micro_usd",
        show=lambda price: number(notation.render_price_number(price)),
        shape=Notation(says="dollars per hour such as `40`", parse=values.make_price),
        doc="Offers above this price, for all nodes together, are refused.",
        example="40",
        also=("max_cost", "budget", "max_price", "price_cap"),
    ),
    Field(
        name="volumes",
        shape=ListOf(item=OPEN_MAP, says="a list of mappings"),
        doc="Disks of the cloud to attach.",
        example="[{name: disk-1, path: /mnt/disk}]",
        later=True,
    ),
    Field(
        name="regions",
        into="areas",
        show=list,
        shape=TEXTS,
        doc="Where it may run, any of them: regions, countries (`KR`), `eu`, continents, infrastructures. "
        "A place that is not "
        "known to be in a named country is refused.",
        example="[eu, us-west-2]",
        also=("allowed_regions", "residency"),
    ),
    Field(
        name="not",
        shape=ListOf(item=EXCLUSION, one_will_do=True, says="a mapping or a list of mappings"),
        doc="What must not be chosen; each entry rules out what all of its fields name.",
        example="{infra: aws}",
        also=("exclude", "blocked"),
    ),
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
        name="networking",
        shape=NETWORKING,
        doc="Network that the nodes join, by names or ids; places that have none to choose from are refused.",
        example="{vpc_name: lab, subnet_name: gpu, security_groups: [sg-1]}",
        also=("network",),
    ),
)

#: What SkyPilot itself writes beside the others when it stores a task; not its `_docker_login_config`, which
#: has a password.
_STORED: Final = (
    *(
        Field(
            name=name, shape=Open(), doc="Written by SkyPilot into stored tasks.", example="true", later=True
        )
        for name in (
            "_cluster_config_overrides",
            "_is_image_managed",
            "_no_missing_accel_warnings",
            "_requires_fuse",
        )
    ),
)

CANDIDATE: Final = Table(name="resources", fields=(*_CANDIDATE, *_STORED))

RESOURCES: Final = Table(
    name="resources",
    fields=(
        *_CANDIDATE,
        *_STORED,
        Field(
            name="any_of",
            shape=ListOf(item=CANDIDATE, maximum=100, says="a list of resources"),
            doc="Candidates; the cheapest that can be had is taken. Each adds to the fields beside `any_of`.",
            example="[{infra: local}, {accelerators: L4}]",
            also=("anyof", "one_of"),
        ),
        Field(
            name="ordered",
            shape=ListOf(item=CANDIDATE, maximum=100, says="a list of resources"),
            doc="Candidates in order of preference.",
            example="[{accelerators: H100}, {accelerators: A100}]",
            also=("ordered_list", "prefer"),
        ),
    ),
)
