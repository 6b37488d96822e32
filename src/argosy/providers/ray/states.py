"""What became of a claim, as Ray's jobs, actors and nodes tell it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.model.facts import ClaimFact, ClaimState, NodeSighting
from argosy.providers.ray.api import Actor, Job, RayNode

CLASS: Final = "ArgosyNode"  # of the actors that are nodes of claims
TAG: Final = "argosy_tag"  # in the metadata of our jobs: the database that ordered it
PLAN: Final = "argosy_claim"
_NOT_YET: Final = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "RESTARTING")
_PREEMPTED: Final = "preemption"  # in what Ray says of a node that ended
#: How Ray calls its reasons for jobs that did not even start.
_ERRORS: Final = {
    "RUNTIME_ENV_SETUP_FAILURE": "its runtime environment could not be set up",
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT": "Ray did not start it in time: the head node is full or busy",
    "JOB_SUPERVISOR_ACTOR_START_FAILURE": "Ray could not start it",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE": "Ray cannot place it: no node has what it asks for",
    "JOB_SUPERVISOR_ACTOR_DIED": "the node that ran its driver is lost",
    "JOB_ENTRYPOINT_COMMAND_START_ERROR": "its command could not be started",
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver of a claim is told, as JSON in the job's metadata."""

    claim: str
    count: int
    bundle: Mapping[str, float]  # of each node: CPU, GPU, memory and what the cluster calls its own
    wait_s: int  # so long it may wait for room; 0: as long as it takes
    node_dir: str
    agent: str  # file of the agent in the package
    dials: bool  # nodes wait for an order to dial the server
    posts: bool = False  # nodes are reached through the dashboard, by way of the job's driver

    @property
    def wanted(self) -> str:
        """What each node is to have, in words."""
        amounts = {name: amount for name, amount in self.bundle.items() if ":" not in name}
        if memory := amounts.pop("memory", 0):
            amounts["GiB"] = round(memory / (1 << 30), 1)
        return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())


def plan_of(job: Job) -> Plan | None:
    """None: the job is no claim of ours."""
    text = (job.metadata or {}).get(PLAN, "")
    try:
        plan = msgspec.json.decode(text, type=Plan)
    except msgspec.MsgspecError:
        return None
    return plan if plan.claim == job.submission_id else None


def fact_of(
    job: Job, plan: Plan, region: str, actors: Mapping[str, Actor], nodes: Mapping[str, RayNode], waiting: str
) -> ClaimFact:
    """`actors`: by name, those of claims. `waiting`: what to say of a claim that has no room yet."""
    tag = (job.metadata or {}).get(TAG, "")
    mine = [actors.get(f"{plan.claim}-{index}") for index in range(plan.count)]
    if job.is_over:
        state, text = end_of(job, [each for each in mine if each is not None], nodes)
        return ClaimFact(claim_id=plan.claim, state=state, detail=text, tag=tag)
    if any(each is None or each.state in _NOT_YET for each in mine):
        started = job.status == "RUNNING" and any(each is not None for each in mine)
        text = "its nodes start" if started else waiting if job.status == "RUNNING" else "Ray starts its job"
        return ClaimFact(claim_id=plan.claim, state=ClaimState.PENDING, detail=text, tag=tag)
    sightings = tuple(
        NodeSighting(
            index=index,
            address=address_of(plan.claim, index, region),
            ip=_ip(each, nodes),
            alive=each is not None and each.state == "ALIVE",
        )
        for index, each in enumerate(mine)
    )
    return ClaimFact(claim_id=plan.claim, state=ClaimState.HELD, nodes=sightings, tag=tag)


def _ip(actor: Actor | None, nodes: Mapping[str, RayNode]) -> str:
    node = nodes.get((actor.node_id if actor is not None else None) or "")
    return node.node_ip if node is not None and node.node_ip else "127.0.0.1"


def end_of(job: Job, actors: Sequence[Actor], nodes: Mapping[str, RayNode]) -> tuple[ClaimState, str]:
    """How a claim's job ended, with Ray's words for it."""
    lost = [
        node for each in actors if (node := nodes.get(each.node_id or "")) is not None and not node.is_alive
    ]
    told = next((node.state_message for node in lost if _PREEMPTED in (node.state_message or "")), None)
    if told:
        return ClaimState.PREEMPTED, told
    if job.status == "STOPPED":
        return ClaimState.GONE, "its job was stopped"
    if job.driver_exit_code is not None and job.driver_exit_code < 0:
        return ClaimState.GONE, f"its driver was ended by signal {-job.driver_exit_code}"
    text = last_words(job.message or "") or reason_of(job) or _last_line(job.message or "")
    return ClaimState.GONE, text or "its job ended"


def reason_of(job: Job) -> str:
    """Why Ray could not run a job to an end of its own, with its words; "": it could."""
    text = _ERRORS.get(job.error_type or "", "")
    said = " ".join((job.message or "").split())[:400]
    return f"{text}: {said}" if text and said else text


def last_words(output: str) -> str:
    """What our driver said last.

    >>> last_words("x\\nargosy: node 0 is lost\\nargosy: no room in the cluster within 5 s\\n")
    'no room in the cluster within 5 s'
    """
    found = re.findall(r"^argosy: (.*)$", output, re.MULTILINE)
    return found[-1][:400] if found else ""


def _last_line(text: str) -> str:
    """Of a traceback: the error."""
    return text.strip().splitlines()[-1][:400] if text.strip() else ""


def address_of(claim_id: str, index: int, region: str) -> str:
    return f"{claim_id}-{index}@{region}"


def parse_address(address: str) -> tuple[str, str]:
    """Name of the node, and the cluster.

    >>> parse_address("clm-x-0@10.0.0.5:8265")
    ('clm-x-0', '10.0.0.5:8265')
    """
    name, _, region = address.partition("@")
    return name, region


def waiting_text(plan: Plan, fits: int, now: int, coming: int) -> str:
    """Why a claim has no nodes yet, and whether more are on their way."""
    if now >= plan.count:
        return "Ray makes a placement group for it"
    nodes = "a node" if plan.count == 1 else f"{plan.count} nodes"
    text = f"waits for room: {nodes} with {plan.wanted}; {now} of {fits} that are large enough are free"
    return text + (f"; the autoscaler starts {coming} more" if coming else "")
