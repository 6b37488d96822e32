"""Instances as EC2 lists them, and what they say about a claim. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.tombstones import is_claim_id
from argosy.model.facts import ClaimFact, ClaimState, NodeSighting
from argosy.providers.aws.orders import Order

CLAIM: Final = "argosy-claim"  # its id
TAG: Final = "argosy-server"  # of the database that ordered it
NODES: Final = "argosy-nodes"  # how many machines were ordered together
USER: Final = "argosy-user"  # who logs in
NAME: Final = "Name"  # what the console shows
LAG_S: Final = 60.0  # so long after an order a listing may not show it yet
_PREEMPTED: Final = frozenset(("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"))
_ENDED: Final = frozenset(("shutting-down", "terminated"))
_RESTING: Final = frozenset(("stopping", "stopped"))


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One instance that carries the mark of a claim."""

    id: str
    region: str
    zone: str
    claim_id: str
    tag: str
    count: int  # machines of its claim, as was ordered
    user: str = "ubuntu"  # who logs in
    place: int = 0  # in the order of its launch
    kind: str = ""
    state: str = "pending"  # pending | running | shutting-down | terminated | stopping | stopped
    reason: str = ""  # code of why it stopped or ended
    said: str = ""  # and its text
    launched: str = ""
    reservation: str = ""  # of one order
    spot: bool = False
    spot_request: str = ""
    private_ip: str = ""
    public_ip: str = ""

    @property
    def is_ended(self) -> bool:
        return self.state in _ENDED

    @property
    def rests(self) -> bool:
        return self.state in _RESTING

    @property
    def address(self) -> str:
        return f"{self.region}/{self.id}"


def machines_of(region: str, reservations: Iterable[Mapping[str, Any]]) -> list[Machine]:
    """Those of a listing that are marked as ours; nothing else is looked at."""
    found = []
    for reservation in reservations:
        for each in reservation.get("Instances", ()):
            tags = {tag["Key"]: tag["Value"] for tag in each.get("Tags", ())}
            if is_claim_id(tags.get(CLAIM, "")):
                found.append(_machine(region, reservation.get("ReservationId", ""), each, tags))
    return found


def _machine(region: str, reservation: str, each: Mapping[str, Any], tags: Mapping[str, str]) -> Machine:
    count = tags.get(NODES, "1")
    reason = each.get("StateReason", {})
    return Machine(
        id=each["InstanceId"],
        region=region,
        zone=each.get("Placement", {}).get("AvailabilityZone", ""),
        claim_id=tags[CLAIM],
        tag=tags.get(TAG, ""),
        user=tags.get(USER, "") or "ubuntu",
        count=int(count) if count.isdigit() else 1,
        place=int(each.get("AmiLaunchIndex", 0)),
        kind=each.get("InstanceType", ""),
        state=each.get("State", {}).get("Name", "pending"),
        reason=reason.get("Code", ""),
        said=reason.get("Message", ""),
        launched=str(each.get("LaunchTime", "")),
        reservation=reservation,
        spot=each.get("InstanceLifecycle", "") == "spot",
        spot_request=each.get("SpotInstanceRequestId", ""),
        private_ip=each.get("PrivateIpAddress", ""),
        public_ip=each.get("PublicIpAddress", ""),
    )


def by_claim(machines: Iterable[Machine]) -> dict[str, list[Machine]]:
    found: dict[str, list[Machine]] = {}
    for each in machines:
        found.setdefault(each.claim_id, []).append(each)
    return {claim_id: in_order(listed) for claim_id, listed in found.items()}


def in_order(machines: Iterable[Machine]) -> list[Machine]:
    """By index of the node: the same after they have rested."""
    return sorted(machines, key=lambda each: (each.place, each.id))


def surplus(machines: Sequence[Machine], order: Order | None) -> list[Machine]:
    """Of two orders for one claim the noted one stays, else the older."""
    live = [each for each in machines if not each.is_ended]
    if not live or len(live) <= live[0].count:
        return []
    if order is not None and set(order.ids) & {each.id for each in live}:
        return [each for each in live if each.id not in order.ids]
    first = min(live, key=lambda each: (each.launched, each.reservation)).reservation
    return [each for each in live if each.reservation != first]


def fact_of(claim_id: str, machines: Sequence[Machine], order: Order | None, now_ms: int) -> ClaimFact | None:
    """What is known of a claim; None: there is nothing of it.

    Args:
        machines: all that are listed of it, in order.
    """
    if not machines:
        return _unlisted(claim_id, order, now_ms)
    tag = machines[0].tag
    if order is not None and order.ids and any(each.id in order.ids for each in machines):
        machines = [each for each in machines if each.id in order.ids] or machines
    ended = [each for each in machines if each.is_ended]
    if ended:
        taken = [each for each in ended if each.reason in _PREEMPTED]
        if order is None and not taken and len(ended) == len(machines):
            return None  # released, and still listed for an hour
        state = ClaimState.PREEMPTED if taken else ClaimState.GONE
        return ClaimFact(claim_id=claim_id, state=state, tag=tag, detail=end_text((taken or ended)[0]))
    nodes = tuple(
        NodeSighting(
            index=index,
            address=each.address,
            ip=each.private_ip or each.public_ip,
            alive=each.state == "running",
        )
        for index, each in enumerate(machines[: machines[0].count])
    )
    if all(each.state == "stopped" for each in machines):
        return ClaimFact(claim_id=claim_id, state=ClaimState.STOPPED, nodes=nodes, tag=tag)
    whole = len(machines) >= machines[0].count and all(each.state == "running" for each in machines)
    state = ClaimState.HELD if whole else ClaimState.PENDING
    return ClaimFact(claim_id=claim_id, state=state, nodes=nodes, tag=tag)


def _unlisted(claim_id: str, order: Order | None, now_ms: int) -> ClaimFact | None:
    if order is None or order.ended_ms:
        return None
    if order.rests and not order.ids:
        return ClaimFact(claim_id=claim_id, state=ClaimState.STOPPED, tag=order.tag)
    if not order.ids or now_ms - order.asked_ms <= LAG_S * 1000:
        return ClaimFact(claim_id=claim_id, state=ClaimState.PENDING, tag=order.tag)
    if order.spot:
        text = "AWS no longer lists its spot machines"
        return ClaimFact(claim_id=claim_id, state=ClaimState.PREEMPTED, tag=order.tag, detail=text)
    text = "AWS no longer lists its machines"
    return ClaimFact(claim_id=claim_id, state=ClaimState.GONE, tag=order.tag, detail=text)


def end_text(machine: Machine) -> str:
    """Why a machine ended, in a sentence."""
    what = f"{machine.id} in {machine.zone or machine.region}"
    match machine.reason:
        case "Server.SpotInstanceTermination" | "Server.SpotInstanceShutdown":
            return f"AWS took the spot machine {what} back"
        case "Client.UserInitiatedShutdown":
            return f"somebody terminated {what} by AWS's API or console"
        case "Client.InstanceInitiatedShutdown":
            return f"{what} was shut down from inside"
        case "":
            return f"{what} has ended"
    return f"{what} has ended: {machine.said or machine.reason}"


def launch_error(machine: Machine) -> border.BorderError:
    """Why a machine ended while it was made, as what `ensure` raises."""
    said = f"{machine.id} ended while it was made: {machine.said or machine.reason or 'AWS does not say why'}"
    if machine.reason == "Client.VolumeLimitExceeded":
        return border.QuotaExceeded(
            "EBS volumes",
            "reached",
            f"{said}; raise the quota of EBS storage in {machine.region}, or ask for less",
        )
    if machine.reason == "Client.InternalError" or "KMS" in machine.reason:
        fix = "the KMS key of the disk must be enabled, and your credentials may use it"
        return border.RequestRefused("config.aws.kms_key", f"{said}; {fix}")
    return border.OutOfCapacity(machine.zone or machine.region, said)
