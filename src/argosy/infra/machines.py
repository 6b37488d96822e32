"""Virtual machines of any cloud, and what they say about a claim. Pure.

A machine is ours when it carries the id of a claim: in labels where the cloud has them, in its name where it
has not. `machine_driver` does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.tombstones import is_claim_id
from argosy.model.facts import ClaimFact, ClaimState, NodeSighting
from argosy.model.rows import Claim

CLAIM: Final = "argosy-claim"  # its id
TAG: Final = "argosy-server"  # of the database that ordered it
NODE: Final = "argosy-node"  # which of the claim's nodes
NODES: Final = "argosy-nodes"  # how many machines were ordered together
USER: Final = "argosy-user"  # who logs in
_NAME: Final = re.compile(r"(clm-[0-9a-z]+)-(\d+)")
_TAGGED: Final = re.compile(r"(clm-[0-9a-z]+)-(\d+)(?:-([0-9a-z-]+))?")
_TAG: Final = "sto-"  # with which tags of databases begin; left out of names, which are short


class MachineState(StrEnum):
    """A cloud's own words come down to these."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"  # at rest, with its disk
    PREEMPTED = "preempted"  # taken back by the cloud
    ENDED = "ended"  # gone, or going for good
    FAILED = "failed"  # it was never made: `error` says why


ENDS: Final = frozenset((MachineState.PREEMPTED, MachineState.ENDED, MachineState.FAILED))
RESTS: Final = frozenset((MachineState.STOPPING, MachineState.STOPPED))


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Whose a machine is, as its cloud keeps it with the machine."""

    claim_id: str
    index: int  # of the node
    count: int = 1  # machines of its claim, as was ordered
    tag: str = ""
    user: str = ""  # who logs in


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One machine that carries the mark of a claim."""

    id: str
    mark: Mark
    state: MachineState
    region: str = ""
    zone: str = ""
    kind: str = ""  # type of machine
    user: str = "root"  # who logs in
    spot: bool = False
    host: str = ""  # where sshd listens; "": not known yet
    port: int = 22
    ip: str = ""  # where the other nodes of the claim reach it; "": at `host`
    created: str = ""  # sorts by time: of two machines for one node the older stays
    said: str = ""  # why it ended, in the cloud's words
    error: border.BorderError | None = None  # of FAILED
    own_key: bool = False  # it has made its host key itself
    stays: bool = False  # although it has ended: somebody has to delete it

    @property
    def claim_id(self) -> str:
        return self.mark.claim_id

    @property
    def index(self) -> int:
        return self.mark.index

    @property
    def is_live(self) -> bool:
        """It costs money, or will."""
        return self.state not in ENDS

    @property
    def to_delete(self) -> bool:
        return self.is_live or self.stays

    @property
    def address(self) -> str:
        return f"{self.region}/{self.id}"


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was ordered for one claim. Written before the order."""

    claim_id: str
    count: int
    region: str
    zone: str = ""
    tag: str = ""
    spot: bool = False
    rests: bool = False  # it shall be at rest
    ids: Mapping[int, str] = {}  # of the machines whose order was answered, by index of their nodes
    unclear: Mapping[int, int] = {}  # orders without an answer: index -> when asked, in ms
    asked_ms: int = 0  # when something was last ordered
    keeps: Mapping[str, str] = {}  # what was made beside machines, in the driver's own words
    ended_ms: int = 0  # released: what is left goes when the cloud lets it

    @property
    def is_whole(self) -> bool:
        return len(self.ids) >= self.count


def with_found(note: Note, machines: Sequence[Machine]) -> Note:
    """The note, when what was ordered without an answer has appeared."""
    found = {each.index: each.id for each in machines if each.is_live and each.index < note.count}
    unclear = {index: at for index, at in note.unclear.items() if index not in found}
    return msgspec.structs.replace(note, ids={**note.ids, **found}, unclear=unclear)


def promised(note: Note) -> list[Machine]:
    """The machines whose order was answered, whether they are listed or not."""
    return [
        Machine(
            id=id,
            mark=Mark(claim_id=note.claim_id, index=index),
            state=MachineState.STARTING,
            region=note.region,
            zone=note.zone,
            spot=note.spot,
        )
        for index, id in note.ids.items()
        if id
    ]


def name_of(claim_id: str, index: int) -> str:
    """A name that is unique everywhere, and legal wherever host names are: `clm-...-0`, 32 characters."""
    return f"{claim_id}-{index}"


def of_name(name: str) -> tuple[str, int] | None:
    """The claim and the node of a name that `name_of` made.

    >>> of_name("clm-0000000000000000000z-12"), of_name("web-1")
    (('clm-0000000000000000000z', 12), None)
    """
    found = _NAME.fullmatch(name)
    return (found[1], int(found[2])) if found and is_claim_id(found[1]) else None


def tagged_name_of(claim_id: str, index: int, tag: str) -> str:
    """A name that also says which database ordered, for clouds whose machines carry no labels from their
    first moment: at most 63 characters for ids of ours.

    >>> tagged_name_of("clm-0000000000000000000z", 1, "sto-00000000000000000007")
    'clm-0000000000000000000z-1-00000000000000000007'
    """
    short = tag.removeprefix(_TAG).lower()
    return name_of(claim_id, index) + (f"-{short}" if short else "")


def of_tagged_name(name: str) -> Mark | None:
    """The mark in a name that `tagged_name_of` made.

    >>> of_tagged_name("clm-0000000000000000000z-1-00000000000000000007").tag
    'sto-00000000000000000007'
    """
    found = _TAGGED.fullmatch(name)
    if found is None or not is_claim_id(found[1]):
        return None
    return Mark(claim_id=found[1], index=int(found[2]), tag=f"{_TAG}{found[3]}" if found[3] else "")


def labels_of(claim_id: str, index: int, count: int, tag: str, user: str = "") -> dict[str, str]:
    """The marks of one machine: keys and values of lower-case letters, digits and `-`."""
    labels = {CLAIM: claim_id, NODE: str(index), NODES: str(count), TAG: tag, USER: user}
    return {key: value for key, value in labels.items() if value}


def mark_in(labels: Mapping[str, str]) -> Mark | None:
    """None: the machine is not ours.

    >>> mark_in({"argosy-claim": "clm-0000000000000000000z", "argosy-node": "1", "argosy-nodes": "2"}).index
    1
    """
    claim_id, index, count = labels.get(CLAIM, ""), labels.get(NODE, "0"), labels.get(NODES, "1")
    if not is_claim_id(claim_id) or not index.isdigit() or not count.isdigit():
        return None
    tag, user = labels.get(TAG, ""), labels.get(USER, "")
    return Mark(claim_id=claim_id, index=int(index), count=int(count), tag=tag, user=user)


def mark_by_name(labels: Mapping[str, str], name: str) -> Mark | None:
    """As `mark_in`, where machines of one order have the same labels: which node one is tells its name."""
    mark, named = mark_in(labels), of_name(name)
    if mark is None or named is None or named[0] != mark.claim_id:
        return None
    return msgspec.structs.replace(mark, index=named[1])


#: Where marks are a list of tags. These stay in an account without their machines: so none names a claim.
OURS: Final = "argosy"
_OF_SERVER, _OF_NODES = "argosy-server:", "argosy-nodes:"
_WORDS: Final = re.compile(rf"{OURS} (\d+)(?: (\S+))?")


def tags_of(claim: Claim) -> list[str]:
    """The tags of a machine whose name is its claim and node."""
    return [OURS, f"{_OF_NODES}{claim.count}", *([f"{_OF_SERVER}{claim.tag}"] if claim.tag else [])]


def mark_in_tags(name: str, tags: Collection[str]) -> Mark | None:
    """None: the machine is not ours.

    >>> mark_in_tags("clm-0000000000000000000z-1", ["argosy", "argosy-nodes:2"]).count
    2
    """

    def told(prefix: str) -> str:
        return next((each.removeprefix(prefix) for each in tags if each.startswith(prefix)), "")

    return _mark(name, told(_OF_NODES) or "1", told(_OF_SERVER)) if OURS in tags else None


def words_of(claim: Claim) -> str:
    """The marks of a machine beside its name, where there is a line of text for them."""
    return f"{OURS} {claim.count} {claim.tag}".strip()


def mark_in_words(name: str, words: str) -> Mark | None:
    """None: the machine is not ours.

    >>> mark_in_words("clm-0000000000000000000z-1", "argosy 2 sto-1").tag
    'sto-1'
    """
    found = _WORDS.fullmatch(words)
    return _mark(name, found[1], found[2] or "") if found is not None else None


def _mark(name: str, count: str, tag: str) -> Mark | None:
    named = of_name(name)
    if named is None or not count.isdigit():
        return None
    return Mark(claim_id=named[0], index=named[1], count=int(count), tag=tag)


def by_claim(machines: Iterable[Machine]) -> dict[str, list[Machine]]:
    """In order of their nodes, the older first."""
    found: dict[str, list[Machine]] = {}
    for each in sorted(machines, key=lambda each: (each.index, not each.is_live, each.created, each.id)):
        found.setdefault(each.claim_id, []).append(each)
    return found


def surplus(machines: Sequence[Machine], note: Note | None) -> list[Machine]:
    """Of two live machines for one node the noted one stays, else the older."""
    known = set(note.ids.values()) if note is not None else set()
    stay: dict[int, Machine] = {}
    for each in machines:
        if each.is_live and (each.index not in stay or each.id in known):
            stay[each.index] = each
    return [each for each in machines if each.is_live and stay[each.index].id != each.id]


def fact_of(
    claim_id: str, machines: Sequence[Machine], note: Note | None, now_ms: int, *, lag_s: float, title: str
) -> ClaimFact | None:
    """What is known of a claim; None: there is nothing of it.

    Args:
        machines: all that are listed of it, as `by_claim` orders them.
        lag_s: so long after an order a listing may not show it yet.
    """
    tag = next((each.mark.tag for each in machines if each.mark.tag), note.tag if note is not None else "")

    def fact(state: ClaimState, detail: str = "", nodes: tuple[NodeSighting, ...] = ()) -> ClaimFact:
        return ClaimFact(claim_id=claim_id, state=state, tag=tag, detail=detail, nodes=nodes)

    extra = {each.id for each in surplus(machines, note)}
    machines = [each for each in machines if each.id not in extra]
    live = {each.index: each for each in machines if each.is_live}
    if not machines and (note is None or note.ended_ms):
        return None
    if note is None and not live and not any(each.stays for each in machines):
        return None  # released, and still listed
    ended = [each for each in machines if not each.is_live and each.index not in live]
    taken = [each for each in ended if each.state is MachineState.PREEMPTED]
    taken += [each for each in live.values() if _went_to_rest(each, note)]
    if taken or ended:
        state = ClaimState.PREEMPTED if taken else ClaimState.GONE
        return fact(state, end_text((taken or ended)[0], title))
    count = note.count if note is not None else max(each.mark.count for each in machines)
    if note is not None and note.rests and not note.ids and not live:
        return fact(ClaimState.STOPPED)
    missing = [index for index in range(count) if index not in live]
    if missing and note is not None and note.is_whole and now_ms - note.asked_ms > lag_s * 1000:
        what = f"{title} no longer lists {name_of(claim_id, missing[0])}"
        return fact(ClaimState.PREEMPTED if note.spot else ClaimState.GONE, what)
    nodes = tuple(
        NodeSighting(
            index=index,
            address=each.address,
            ip=each.ip or each.host,
            alive=each.state is MachineState.RUNNING,
        )
        for index, each in sorted(live.items())
    )
    states = {each.state for each in live.values()}
    if not missing and states == {MachineState.STOPPED}:
        return fact(ClaimState.STOPPED, "", nodes)
    held = not missing and states == {MachineState.RUNNING}
    return fact(ClaimState.HELD if held else ClaimState.PENDING, "", nodes)


def _went_to_rest(machine: Machine, note: Note | None) -> bool:
    """A spot machine that nobody sent to rest was taken back."""
    return machine.spot and machine.state in RESTS and note is not None and not note.rests


def end_text(machine: Machine, title: str) -> str:
    """Why a machine ended, in a sentence."""
    what = f"{name_of(machine.claim_id, machine.index)} in {machine.zone or machine.region or title}"
    if machine.state is MachineState.PREEMPTED or (machine.spot and machine.state in RESTS):
        return f"{title} took the spot machine {what} back" + (f": {machine.said}" if machine.said else "")
    return f"{what} has ended" + (f": {machine.said}" if machine.said else "")


#: Of several refusals the one that people can act on is told.
_TELLING: Final = (
    border.CredentialsRejected,
    border.RequestRefused,
    border.Unsupported,
    border.QuotaExceeded,
    border.OutOfCapacity,
    border.Transient,
)


def most_telling(errors: Sequence[border.BorderError]) -> border.BorderError:
    def rank(error: border.BorderError) -> int:
        return next((at for at, kind in enumerate(_TELLING) if isinstance(error, kind)), len(_TELLING))

    return min(errors, key=rank)
