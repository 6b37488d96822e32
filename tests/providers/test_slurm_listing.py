"""Text of Slurm's commands in the shapes of its versions, and what it becomes. No Slurm is needed."""
# ruff: noqa: E501  (recorded lines)

from __future__ import annotations

import msgspec
import pytest

from argosy.infra import border
from argosy.model.facts import ClaimState
from argosy.model.offer import Capacity
from argosy.model.resources import Accelerator, Resources
from argosy.planning import Ability
from argosy.planning.choose import plan
from argosy.providers.slurm.listing import (
    SEPARATOR,
    SINFO,
    SQUEUE,
    Gres,
    NodeGroup,
    parse_records,
    parse_sinfo,
    parse_squeue,
)
from argosy.providers.slurm.offers import node_kinds, offers_of, part_of
from argosy.providers.slurm.settings import read_options
from argosy.providers.slurm.words import claim_state, end_text, pending_error, refusal


def lines(*rows: str) -> str:
    """Recorded rows, with the separator written as `|`."""
    return "\n".join(row.replace("|", SEPARATOR) for row in rows)


#: By version: what `sinfo -h -e -o SINFO` printed of a partition with GPUs, and what we make of it.
NODES = {
    "20.11": ("gpu|gpu*|3|mixed|gpu:v100:4(S:0-1)|40|191000|skylake,ib|2-00:00:00|1:00:00|1-infinite|up|gpu[01-03]|all",
              ("V100", 4, 3, 172800)),
    "21.08": ("gpu|gpu|2|planned|gpu:a100:4(S:0-3),lustre:1|64|515000+|(null)|1-00:00:00|n/a|1-8|up|a[1-2]|all",
              ("A100", 4, 2, 86400)),
    "22.05": ("low|low*|2|idle|gpu:h100:8,shard:h100:32|16|2000|h100,ib|7-00:00:00|1:00:00|1-infinite|up|n[1-2]|all",
              ("H100", 8, 2, 604800)),
    "23.02": ("dgx|dgx|4|idle~|gpu:nvidia_a100-sxm4-80gb:8(S:0-1)|256|2063000|dgx|infinite|4:00:00|1-4|up|dgx-[1-4]|ml",
              ("A100-80GB", 8, 4, None)),
    "23.11": ("ml|ml|1|allocated|gpu:nvidia_h100_80gb_hbm3:8(S:0-1)|192|2000000|hbm3|3-00:00:00|n/a|1-16|up|h1|all",
              ("H100", 8, 1, 259200)),
    "24.05": ("l4|l4|2|mixed-|gpu:nvidia_l4:4|48|250000|cloud|12:00:00|30:00|1-infinite|up|l4-a,l4-b|all",
              ("L4", 4, 2, 43200)),
    "25.05": ("amd|amd|2|idle|gpu:mi300x:8(S:0-7),shard:0|192|2300000|mi300x|2-12:00:00|n/a|1-infinite|up|m[1-2]|all",
              ("MI300X", 8, 2, 216000)),
}  # fmt: skip


@pytest.mark.parametrize("version", NODES)
def test_nodes_of_every_version_become_offers(version: str) -> None:
    row, (model, count, nodes, limit_s) = NODES[version]
    (group,) = parse_sinfo(lines(row))
    assert group.time_limit_s == limit_s
    (offer,) = offers_of(node_kinds([group]), provider="slurm", cluster="c", named={}, now_ms=1)
    assert (offer.shape.accelerator, offer.shape.accelerators_milli) == (model, count * 1000)
    assert (offer.nodes_max, offer.capacity, offer.divisible) == (nodes, Capacity.QUEUED, True)


#: By version: a line of `squeue -h --states=all -o SQUEUE`, and what the claim is.
JOBS = {
    "20.11": ("7|clm-1|RUNNING|None|gpu[01-02]|argosy:sto-1|2|gpu|2026-11-29T10:00:00|2026-12-01T10:00:00",
              ClaimState.HELD, ("gpu01", "gpu02")),
    "21.08": ("8|clm-1|PENDING|Resources||argosy:sto-1|4|gpu|2026-11-29T20:00:00|N/A", ClaimState.PENDING, ()),
    "22.05": ("9|clm-1|PREEMPTED|None|n[1-2]|argosy:sto-1|2|low|2026-11-29T10:00:00|2026-11-29T10:05:00",
              ClaimState.PREEMPTED, ("n1", "n2")),
    "23.02": ("10|clm-1|NODE_FAIL|NodeDown|n1|argosy:|1|low|2026-11-29T10:00:00|2026-11-29T10:05:00",
              ClaimState.GONE, ("n1",)),
    "23.11": ("11|clm-1|TIMEOUT|TimeLimit|n1|argosy:sto-1|1|low|2026-11-29T10:00:00|2026-11-29T10:05:00",
              ClaimState.GONE, ("n1",)),
    "24.05": ("12|clm-1|CONFIGURING|None|n3|argosy:sto-1|1|low|2026-11-29T10:00:00|N/A", ClaimState.PENDING, ("n3",)),
    "25.05": ("13|clm-1|PENDING|(ReqNodeNotAvail, UnavailableNodes:n[1-3])|(null)|argosy:sto-1|1|low|N/A|N/A",
              ClaimState.PENDING, ()),
}  # fmt: skip


@pytest.mark.parametrize("version", JOBS)
def test_jobs_of_every_version_become_claims(version: str) -> None:
    row, state, nodes = JOBS[version]
    (job,) = parse_squeue(lines(row))
    assert (claim_state(job.state), job.nodes, job.name) == (state, nodes, "clm-1")


def test_noise_around_the_lines_is_left_out() -> None:
    """Login nodes print messages of the day, and commands print warnings."""
    row = JOBS["22.05"][0]
    assert len(parse_squeue(lines("Welcome to the cluster!", row, "", "a|b"))) == 1
    assert parse_sinfo(lines("slurm_load_partitions: Unable to contact slurm controller")) == []
    assert SINFO.count(SEPARATOR) == 13
    assert SQUEUE.count(SEPARATOR) == 9


def test_like_nodes_are_one_kind_whatever_they_do() -> None:
    groups = parse_sinfo(
        lines(
            "gpu|gpu*|1|idle|gpu:h100:8|64|512000|x|infinite|n/a|1-2|up|n1|all",
            "gpu|gpu*|2|mixed|gpu:h100:8|64|512000|y|infinite|n/a|1-2|up|n[2-3]|all",
            "gpu|gpu*|1|drained*|gpu:h100:8|64|512000|x|infinite|n/a|1-2|up|n4|all",
            "gpu|gpu*|1|idle|(null)|64|512000|x|infinite|n/a|1-2|up|c1|all",
            "old|old|1|idle|(null)|8|16000|x|infinite|n/a|1-2|down|c2|all",
        )
    )
    gpu, cpu, old, either = node_kinds(groups)
    assert (either.type, either.total, either.most) == ("any-64c-500g", 5, 2)
    assert (gpu.total, gpu.usable, gpu.idle, gpu.most, gpu.type) == (4, 3, 1, 2, "gpu:h100:8-64c-500g")
    assert (cpu.type, cpu.most) == ("cpu-64c-500g", 1)
    offers = offers_of([gpu, cpu, old], provider="slurm", cluster="c", named={}, now_ms=1)
    assert [(each.zone, each.shape.instance_type) for each in offers] == [
        ("gpu", "gpu:h100:8-64c-500g"),
        ("gpu", "cpu-64c-500g"),
    ]
    (offer,) = offers_of([either], provider="slurm", cluster="c", named={}, now_ms=1)
    assert (offer.shape.accelerator, offer.nodes_max) == (None, 2)


def test_devices_without_a_type_are_known_by_a_feature() -> None:
    (group,) = parse_sinfo(lines("gpu|gpu|1|idle|gpu:2|8|64000|ib,a100|infinite|n/a|1-2|up|n1|all"))
    assert isinstance(group, NodeGroup)
    (kind,) = node_kinds([group])
    assert kind.type == "gpu:2@a100-8c-62g"
    (offer,) = offers_of([kind], provider="slurm", cluster="c", named={"a100": "A100-80GB"}, now_ms=1)
    assert offer.shape.accelerator == "A100-80GB"


#: What `scontrol show ... -o` prints: values may hold spaces, and new versions add fields.
RECORDS = {
    "20.11": ("PartitionName=gpu AllowGroups=ALL AllowAccounts=a,b QoS=N/A MaxNodes=UNLIMITED MaxTime=2-00:00:00", "AllowAccounts", "a,b"),
    "22.05": ("NodeName=n1 Arch=x86_64 OS=Linux 6.1.0-9 #1 SMP PREEMPT Debian State=IDLE+DRAIN Reason=disk full [root@x]", "OS",
              "Linux 6.1.0-9 #1 SMP PREEMPT Debian"),
    "25.05": ("NodeName=n1 NodeAddr=10.0.0.1 CfgTRES=cpu=64,mem=512000M,gres/gpu=8 AllocTRES= Comment=a b", "NodeAddr", "10.0.0.1"),
}  # fmt: skip


@pytest.mark.parametrize("version", RECORDS)
def test_records_of_every_version(version: str) -> None:
    row, name, value = RECORDS[version]
    assert parse_records(row)[0][name] == value


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        (
            "sbatch: error: invalid partition specified: gup\nsbatch: error: Batch job submission failed: Invalid partition name specified",
            border.RequestRefused,
            "Slurm: invalid partition specified: gup; Invalid partition name specified; `sinfo -s` lists the partitions",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
            border.RequestRefused,
            "Slurm: Invalid account or account/partition combination specified; `sacctmgr show assoc user=$USER` lists "
            "your accounts; set `config.slurm.account`",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid qos specification",
            border.RequestRefused,
            "Slurm: Invalid qos specification; `sacctmgr show qos` lists them; set `config.slurm.qos`",
        ),
        (
            "sbatch: error: Batch job submission failed: User's group not permitted to use this partition",
            border.RequestRefused,
            "Slurm: User's group not permitted to use this partition; choose a partition that you may use, or ask its owner",
        ),
        (
            "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
            border.RequestRefused,
            "Slurm: Requested time limit is invalid (missing or exceeds some limit); ask for less with "
            "`config.slurm.time`; `sinfo -o '%R %l'` shows the limits",
        ),
        (
            "sbatch: error: Batch job submission failed: Requested node configuration is not available",
            border.OutOfCapacity,
            "Slurm: Requested node configuration is not available; `sinfo -e -o '%R %D %c %m %G'` shows what nodes have",
        ),
        (
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's "
            "size and/or time limits)",
            border.QuotaExceeded,
            "Slurm: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits); "
            "`sacctmgr show assoc user=$USER` and `sacctmgr show qos` show the limits",
        ),
        (
            "squeue: error: Unable to contact slurm controller (connect failure)",
            border.Transient,
            "the controller of Slurm does not answer: Unable to contact slurm controller (connect failure)",
        ),
        (
            "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
            border.Transient,
            "the controller of Slurm does not answer: Slurm temporarily unable to accept job, sleeping and retrying",
        ),
        (
            "sbatch: error: Batch job submission failed: Access/permission denied",
            border.CredentialsRejected,
            "Slurm: Access/permission denied; ask the site for access",
        ),
        (
            "sinfo: error: Munge decode failed: Rewound credential",
            border.CredentialsRejected,
            "Slurm: Munge decode failed: Rewound credential; the clocks of this machine and of the controller differ: "
            "`timedatectl` there and here tells whose is off",
        ),
        (
            "slurm_load_partitions: Protocol authentication error",
            border.CredentialsRejected,
            "Slurm: slurm_load_partitions: Protocol authentication error; munge does not accept this machine: its key or "
            "its clock is another than the controller's (`munge -n | unmunge` tells; `timedatectl` there and here tells "
            "whose is off)",
        ),
        (
            "sbatch: error: Batch job submission failed: Requested reservation is invalid",
            border.RequestRefused,
            "Slurm: Requested reservation is invalid; `scontrol show reservation` lists them",
        ),
        ("sbatch: error: the site says no", border.RequestRefused, "Slurm refuses the job: the site says no"),
    ],
)
def test_slurms_words_are_kept_and_our_fix_follows(
    said: str, kind: type[border.BorderError], text: str
) -> None:
    error = refusal(said, "lab/gpu")
    assert (type(error), str(error)) == (kind, text)


@pytest.mark.parametrize(
    ("reason", "kind", "text"),
    [
        (
            "PartitionTimeLimit",
            border.RequestRefused,
            "Slurm: PartitionTimeLimit: the partition's time limit is shorter",
        ),
        ("InvalidAccount", border.RequestRefused, "Slurm: InvalidAccount: there is no such account"),
        (
            "AccountNotAllowed",
            border.RequestRefused,
            "Slurm: AccountNotAllowed: the account may not use this partition",
        ),
        (
            "QOSMaxGRESPerUser",
            border.QuotaExceeded,
            "quota QOSMaxGRESPerUser is exhausted (limit set by the site)",
        ),
        ("AssocGrpGRES", border.QuotaExceeded, "quota AssocGrpGRES is exhausted (limit set by the site)"),
        (
            "AssocGrpBillingMinutes",
            border.QuotaExceeded,
            "quota AssocGrpBillingMinutes is exhausted (limit set by the site)",
        ),
    ],
)
def test_reasons_of_waiting_that_never_pass(reason: str, kind: type[border.BorderError], text: str) -> None:
    error = pending_error(reason)
    assert (type(error), str(error)) == (kind, text)


def test_reasons_of_waiting_and_of_ends() -> None:
    assert pending_error("Resources") is None
    assert pending_error("Priority") is None
    assert end_text("NODE_FAIL", "NodeDown") == "a node of the job failed (Slurm: NODE_FAIL, NodeDown)"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ('{"time": "soon"}', "`config.slurm.time` is 'soon'; write minutes, `hours:minutes:seconds` or `days-hours:minutes:seconds`"),
        ('{"partition": "a b"}', "`config.slurm.partition` is 'a b'; write a name as Slurm knows it"),
        ('{"native": "yes"}', "`config.slurm.native` is 'yes'; write `true` or `false`"),
        (
            '{"sbatch_options": {"job-name": "x"}}',
            "`--job-name` is given to sbatch by Argosy itself; leave it out of `sbatch_options`",
        ),
        ('{"sbatch_options": "x"}', "`config.slurm.sbatch_options` is 'x'; write a map: `{licenses: matlab:1, mail-type: END}`"),
    ],
)  # fmt: skip
def test_wrong_settings_of_a_task_say_what_to_write(config: str, text: str) -> None:
    with pytest.raises(border.RequestRefused) as caught:
        read_options(f'{{"slurm": {config}}}')
    assert str(caught.value) == text


def test_settings_of_a_task() -> None:
    options = read_options(
        '{"aws": {"x": 1}, "slurm": {"partition": "gpu", "time": "2-0", "sbatch_options": {"exclusive": null, "w": "n1"}}}'
    )
    assert (options.partition, options.time_s, options.sbatch) == ("gpu", 172800, ("--exclusive", "-wn1"))
    assert read_options("") == read_options('{"local": {}}')


def test_shards_are_parts_of_a_gpu() -> None:
    (group,) = parse_sinfo(
        lines("ml|ml|2|idle|gpu:h100:8,shard:h100:32|64|512000|x|infinite|n/a|1-2|up|n[1-2]|all")
    )
    (kind,) = node_kinds([group])
    assert (kind.type, kind.shards) == ("gpu:h100:8-64c-500g", Gres(name="shard", type="h100", count=32))
    (offer,) = offers_of([kind], provider="slurm", cluster="c", named={}, now_ms=1)
    whole = msgspec.structs.replace(offer, parts=False)
    wish = (Resources(accelerator=Accelerator(model="H100", milli=250)),)
    able = {"slurm": Ability(multi_node=True)}
    (choice,) = plan(wish, 1, [offer], abilities=able).choices
    assert (choice.accelerators_milli, part_of(kind, 250)) == (250, "shard:h100:1")
    assert [part_of(kind, milli) for milli in (50, 500, 900)] == [f"shard:h100:{n}" for n in (1, 2, 4)]
    refused = plan(wish, 1, [whole], abilities=able)
    assert not refused.choices
    assert refused.rejected[0].text == "gives whole accelerators only"
