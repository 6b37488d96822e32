"""What a program finds in its environment. Every variable has its SkyPilot twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from argosy.controllers.installing import folder_name, install_text
from argosy.controllers.job.hooks import with_hooks
from argosy.controllers.job.ports import port_of, with_ports
from argosy.infra.agent_port import AppOrder, RankOrder
from argosy.infra.runners import with_programs
from argosy.model.apps import Isolation
from argosy.model.kinds.job import JobSpec, job_spec, job_task, kept_as, task_id
from argosy.model.rows import Attempt, Claim, Node, Workload
from argosy.model.slices import hosts_of
from argosy.model.task import Task

PIDS_MAX = 8192  # per rank, where the node can limit it: a fork bomb ends itself, not the machine


def checkpoint_dir(job: Workload, shared_dir: str) -> str:
    """Where the job keeps what must survive (of a session: its home): shared by its nodes and outliving
    claims where the provider has such a folder and its copies are in no bucket, else in the node's home."""
    shared_dir = "" if job_task(job).checkpoints.to else shared_dir
    return f"{shared_dir or '~'}/checkpoints/{kept_as(job)}"


def rank_orders(
    job: Workload,
    attempt: Attempt,
    nodes: Sequence[Node],
    *,
    cluster: Workload | None,
    claim: Claim | None,
    shared_dir: str,
    peers: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[Node, RankOrder]]:
    """One order per rank, with its node. `nodes` are the nodes of the placements, in rank order; `peers`:
    variables about the other tasks of its group."""
    spec = job_spec(job)
    task = spec.task
    common = _of_all_ranks(job, attempt, nodes, cluster, claim)
    own = {
        "ARGOSY_HEAD_IP": nodes[0].ip,
        "ARGOSY_JOB_ID": job.id,
        "ARGOSY_ATTEMPT": str(attempt.number),
        "ARGOSY_CHECKPOINT_DIR": checkpoint_dir(job, shared_dir),
        "SKYPILOT_CHECKPOINT_DIR": checkpoint_dir(job, shared_dir),
        "SKYPILOT_HEAD_IP": nodes[0].ip,
    }
    result = []
    for placement, node in zip(attempt.placements, nodes, strict=True):
        per_rank = common | {"NODE_RANK": str(placement.rank), "SETUP_NODE_RANK": str(placement.rank)}
        env = {
            f"{prefix}_{name}": value for name, value in per_rank.items() for prefix in ("ARGOSY", "SKYPILOT")
        }
        order = RankOrder(
            id=f"{attempt.id}.{placement.rank}",
            job=job.id,
            attempt=attempt.number,
            setup=_setup_text(spec),
            run=with_hooks(with_ports(_program(task), spec.replica, claim), task.hooks),
            env=env
            | own
            | _of_slice(claim, node, nodes)
            | _of_replica(job, claim)
            | (spec.member.envs if spec.member is not None else {})
            | dict(peers)
            | task.envs,
            devices=tuple(share.index for share in placement.devices),
            shares=placement.devices,
            tenant=job.project,
            cpus_milli=placement.cpus_milli,  # a weight, not a cap: an idle core helps whoever can use it
            memory_bytes=placement.memory_bytes,
            pids_max=PIDS_MAX,
            run_now=len(nodes) == 1,
            app=_app_order(job, checkpoint_dir(job, shared_dir), placement.cpus_milli),
        )
        result.append((node, order))
    return result


def _setup_text(spec: JobSpec) -> str:
    setup = spec.task.setup if spec.run_setup else ""
    if spec.sitting is None or spec.sitting.isolation is Isolation.CONTAINER:
        return setup  # an image brings what its app needs
    return install_text(spec.sitting.app, setup)


def _app_order(job: Workload, home: str, cpus_milli: int) -> AppOrder | None:
    """The app that runs in place of a program's own `run`; None for a job that is no session's. Of people who
    ask for a number of processors nobody gets more."""
    spec = job_spec(job)
    if spec.sitting is None:
        return None
    app, in_image = spec.sitting.app, spec.sitting.isolation is Isolation.CONTAINER
    return AppOrder(
        name=app.name,
        command=app.command,
        listens=app.listens,
        port=app.port,
        ready=app.ready,
        kernels=app.kernels,
        program=app.program,
        isolation=spec.sitting.isolation.value,
        image=spec.sitting.image,
        network=spec.sitting.network.value,
        owner=job.user,
        cpus_milli=cpus_milli if any(wish.cpus for wish in spec.task.resources) else 0,
        home=home,
        env=app.env,
        folder="" if in_image else folder_name(app),
        seed=spec.sitting.seed,
    )


def _program(task: Task) -> str:
    """What a rank runs."""
    return with_programs(task.run)


def _of_slice(claim: Claim | None, node: Node, nodes: Sequence[Node]) -> dict[str, str]:
    """What libtpu must know of a slice of several hosts, whose nodes follow each other in a claim: which host
    this is, and where the others are; of several slices, also which one, as JAX reads it."""
    hosts = hosts_of(claim.choice.accelerator) if claim is not None else 1
    if hosts == 1 or len(nodes) % hosts:
        return {}
    number, worker = divmod(node.index, hosts)
    peers = sorted((each for each in nodes if each.index // hosts == number), key=lambda each: each.index)
    if len(peers) != hosts:
        return {}  # a job on some hosts of a slice: it asks the machine itself
    env = {"TPU_WORKER_ID": str(worker), "TPU_WORKER_HOSTNAMES": ",".join(each.ip for each in peers)}
    if len(nodes) == hosts:
        return env
    return env | {
        "MEGASCALE_COORDINATOR_ADDRESS": nodes[0].ip,
        "MEGASCALE_NUM_SLICES": str(len(nodes) // hosts),
        "MEGASCALE_SLICE_ID": str(sorted({each.index // hosts for each in nodes}).index(number)),
    }


def _of_replica(job: Workload, claim: Claim | None) -> dict[str, str]:
    """Variables of a replica of a service. `PORT` is what many frameworks read."""
    replica = job_spec(job).replica
    if replica is None:
        return {}
    port = str(port_of(replica, claim))
    return {
        "ARGOSY_SERVICE_NAME": replica.service,
        "ARGOSY_SERVICE_PORT": port,
        "ARGOSY_SERVICE_REVISION": str(replica.revision),
        "ARGOSY_SERVICE_REPLICA": str(job.number),
        "SKYPILOT_SERVE_REPLICA_ID": str(job.number),
        "SKYPILOT_SERVE_REPLICA_PORT": port,
        "PORT": port,
    }


def _of_all_ranks(
    job: Workload, attempt: Attempt, nodes: Sequence[Node], cluster: Workload | None, claim: Claim | None
) -> dict[str, str]:
    """Variables that all ranks share, without the beginning of their names."""
    ips = "\n".join(node.ip for node in nodes)
    gpus = sum(share.milli for share in attempt.placements[0].devices) if attempt.placements else 0
    offer = claim.choice.offer if claim else None
    info = {
        "cluster_name": cluster.name if cluster else job.name,
        "cloud": offer.provider if offer else "",
        "region": offer.region if offer else "",
        "zone": offer.zone if offer else "",
    }
    common = {
        "NODE_IPS": ips,
        "NUM_NODES": str(len(nodes)),
        "NUM_GPUS_PER_NODE": str(-(-gpus // 1000)),
        "TASK_ID": task_id(job),
        "INTERNAL_JOB_ID": str(job.number),
        "CLUSTER_INFO": msgspec.json.encode(info).decode(),
        "USER": job.user,
        "SETUP_NODE_IPS": ips,
        "SETUP_NUM_GPUS_PER_NODE": str(-(-gpus // 1000)),
    }
    if job_spec(job).managed:
        common["MANAGED_JOB_ID"] = str(job.number)
    return common
