"""What every provider must do, as cases that run against any of them (DESIGN.md, section 6).

    @pytest.mark.parametrize("case", CASES, ids=case_name)
    def test_conformance(case): run_virtual(hold(case, make_my_subject()))

A *subject* is the provider under test with knobs on the world behind it. `hold` raises `NotApplicable` for
what the manifest does not declare and for the subject's `gaps`: skip on it. Gaps are strict: one that is not
declared fails, and so does a declared one that works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import msgspec

from argosy.infra import border
from argosy.infra.provider import Provider, Want
from argosy.model.facts import ClaimFact, ClaimState
from argosy.model.offer import Capacity
from argosy.model.phases import Desired
from argosy.model.rows import Claim
from argosy.testing.builders import a_node


class NotApplicable(Exception):
    """The case does not concern this provider, because ..."""


class NotDeclared(NotApplicable):
    """It is about an ability that the manifest does not declare: `what_is_not_declared_is_refused`."""


class Subject(Protocol):
    """A provider under test, with the knobs and the truth of the world behind it."""

    provider: Provider
    secrets: tuple[str, ...]  # strings that must not appear anywhere
    gaps: Mapping[str, str]  # cases that cannot hold yet, by name, and why

    def claim(self, count: int = 1) -> Claim:
        """A fresh claim that fits."""

    def too_large(self) -> Claim:
        """A claim of several nodes, of which some would fit and not all."""

    async def pass_time(self, seconds: float) -> None: ...

    def truth(self) -> set[str]:
        """Ids of claims that hold anything outside, asked behind the provider's back."""

    def machines(self, claim_id: str) -> int:
        """How many machines really run for a claim."""

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        """Makes the call so that its effect happens and its reply is lost. Raises `NotApplicable`."""

    async def preempt(self, claim_id: str) -> None:
        """Takes the nodes of a claim away. Raises `NotApplicable`."""

    async def make_foreign(self) -> None:
        """Something appears that is not ours."""


Case = Callable[[Subject], Awaitable[None]]


async def hold(case: Case, subject: Subject) -> None:
    """Run a case as a test. Raises `NotApplicable` for a gap that is declared, AssertionError for one that is
    not, for a declared one that works, and for what does not hold."""
    name = case_name(case)
    known = {case_name(each) for each in CASES}
    assert subject.gaps.keys() <= known, f"no such cases: {sorted(subject.gaps.keys() - known)}"
    why = subject.gaps.get(name)
    try:
        await case(subject)
    except NotDeclared:
        raise
    except NotApplicable as missing:
        if why is None:
            raise AssertionError(f"declare the gap `{name}`: {missing}") from missing
        raise NotApplicable(why) from missing
    except (AssertionError, border.BorderError) as failure:
        if why is None:
            raise
        raise NotApplicable(why) from failure
    assert why is None, f"`{name}` works: take it out of the gaps"


async def settled(
    subject: Subject, claim_id: str, wanted: ClaimState = ClaimState.HELD, timeout_s: float = 1200
) -> ClaimFact:
    """Asks until the claim is in the wanted state and, when held, all of its nodes are alive."""
    waited_s, step_s = 0.0, 0.05
    fact: ClaimFact | None = None
    while waited_s < timeout_s:
        fact = next(
            (one for one in await subject.provider.observe([claim_id]) if one.claim_id == claim_id), None
        )
        if (
            fact is not None
            and fact.state is wanted
            and (wanted is not ClaimState.HELD or all(n.alive for n in fact.nodes))
        ):
            return fact
        await subject.pass_time(step_s)
        waited_s += step_s
        step_s = min(step_s * 2, 30)
    raise AssertionError(f"{claim_id} is not {wanted} after {timeout_s} s: {fact}")


async def gone(subject: Subject, claim_id: str, timeout_s: float = 300) -> None:
    waited_s = 0.0
    while waited_s < timeout_s:
        facts = [one for one in await subject.provider.observe([claim_id]) if one.claim_id == claim_id]
        if all(fact.state is ClaimState.GONE for fact in facts) and claim_id not in subject.truth():
            return
        await subject.pass_time(1)
        waited_s += 1
    raise AssertionError(f"{claim_id} is still there after its release")


async def the_manifest_is_plain_data(subject: Subject) -> None:
    manifest = subject.provider.manifest
    assert manifest.name == manifest.name.lower()
    assert manifest.name
    assert manifest.title
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=type(manifest)) == manifest


async def check_says_what_to_do(subject: Subject) -> None:
    findings = await subject.provider.check()
    assert findings, "a check that finds nothing tells nothing"
    for finding in findings:
        assert finding.provider == subject.provider.manifest.name
        assert finding.what
        assert finding.ok or finding.hint, f"`{finding.what}` is not ok and gives no hint"


async def quoted_offers_are_whole_and_declared(subject: Subject) -> None:
    can = subject.provider.manifest.capabilities
    offers = await subject.provider.quote(Want())
    assert offers or subject.provider.manifest.priced_by_catalog
    for offer in offers:
        assert offer.provider == subject.provider.manifest.name
        assert offer.price_micro_usd >= 0
        assert offer.shape.cpus_milli > 0
        assert offer.shape.memory_bytes > 0
        assert offer.quoted_at_ms > 0
        assert offer.capacity is not Capacity.SPOT or can.spot
        assert offer.capacity is not Capacity.OWNED or can.owned


async def the_tag_of_a_claim_comes_back(subject: Subject) -> None:
    claim = msgspec.structs.replace(subject.claim(), tag="sto-of-this-suite")
    await subject.provider.ensure(claim)
    assert (await settled(subject, claim.id)).tag == claim.tag
    assert {fact.tag for fact in await subject.provider.observe([]) if fact.claim_id == claim.id} == {
        claim.tag
    }
    await _clean(subject, claim)


async def ensure_twice_is_one(subject: Subject) -> None:
    claim = subject.claim()
    await subject.provider.ensure(claim)
    await subject.provider.ensure(claim)
    first = await settled(subject, claim.id)
    await subject.provider.ensure(claim)
    second = await settled(subject, claim.id)
    assert [n.address for n in first.nodes] == [n.address for n in second.nodes]
    assert subject.machines(claim.id) == claim.count == len(second.nodes)
    await _clean(subject, claim)


async def concurrent_ensures_are_one(subject: Subject) -> None:
    claim = subject.claim()
    await asyncio.gather(*(subject.provider.ensure(claim) for _ in range(4)))
    await settled(subject, claim.id)
    assert subject.machines(claim.id) == claim.count
    await _clean(subject, claim)


async def a_lost_reply_of_ensure_is_harmless(subject: Subject) -> None:
    claim = subject.claim()
    await subject.lose_reply_of(lambda: subject.provider.ensure(claim))
    await subject.provider.ensure(claim)
    await settled(subject, claim.id)
    assert subject.machines(claim.id) == claim.count
    await _clean(subject, claim)


async def a_lost_reply_of_release_is_harmless(subject: Subject) -> None:
    claim = subject.claim()
    await subject.provider.ensure(claim)
    await settled(subject, claim.id)
    await subject.lose_reply_of(lambda: subject.provider.release(claim.id))
    await subject.provider.release(claim.id)
    await gone(subject, claim.id)


async def release_twice_and_of_the_unknown_succeeds(subject: Subject) -> None:
    claim = subject.claim()
    await subject.provider.release("clm-000000000000000never")
    await subject.provider.ensure(claim)
    await settled(subject, claim.id)
    await subject.provider.release(claim.id)
    await subject.provider.release(claim.id)
    await gone(subject, claim.id)


async def release_while_booting_leaves_nothing(subject: Subject) -> None:
    claim = subject.claim()
    await subject.provider.ensure(claim)
    await subject.provider.release(claim.id)
    await gone(subject, claim.id)
    assert subject.machines(claim.id) == 0


async def a_released_claim_does_not_come_back(subject: Subject) -> None:
    """A late repeat of `ensure`, by a server that did not hear of the release, must not leak machines."""
    claim = subject.claim()
    await subject.provider.ensure(claim)
    await subject.provider.release(claim.id)
    try:
        await subject.provider.ensure(claim)
    except border.RequestRefused:
        pass
    else:
        raise AssertionError("ensure of a released claim must raise RequestRefused")
    assert claim.id not in subject.truth()


async def observe_shows_all_and_only_ours(subject: Subject) -> None:
    await subject.make_foreign()
    claims = [subject.claim() for _ in range(3)]
    for claim in claims:
        await subject.provider.ensure(claim)
    for claim in claims:
        await settled(subject, claim.id)
    ids = {claim.id for claim in claims}
    listed = await subject.provider.observe([])
    assert {fact.claim_id for fact in listed} == ids == subject.truth()
    some = await subject.provider.observe([claims[1].id])
    assert {fact.claim_id for fact in some} == {claims[1].id}
    assert all(isinstance(fact.state, ClaimState) for fact in listed)
    addresses = [node.address for fact in listed for node in fact.nodes]
    assert len(addresses) == len(set(addresses))
    for claim in claims:
        await _clean(subject, claim)
    assert list(await subject.provider.observe([])) == []


async def a_gang_is_all_or_none(subject: Subject) -> None:
    _needs(subject, "multi_node")
    claim = subject.claim(count=2)
    await subject.provider.ensure(claim)
    fact = await settled(subject, claim.id)
    assert [node.index for node in fact.nodes] == list(range(claim.count))
    assert subject.machines(claim.id) == claim.count
    await _clean(subject, claim)
    large = subject.too_large()
    try:
        await subject.provider.ensure(large)
    except (border.OutOfCapacity, border.QuotaExceeded):
        pass
    else:
        raise AssertionError("a claim that does not fit must raise OutOfCapacity or QuotaExceeded")
    assert subject.machines(large.id) == 0
    await subject.provider.release(large.id)
    await gone(subject, large.id)


async def cancelled_in_mid_call_leaves_nothing_unowned(subject: Subject) -> None:
    for step in range(6):
        claim = subject.claim()
        call = asyncio.ensure_future(subject.provider.ensure(claim))
        await subject.pass_time(0.02 * step)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        listed = {fact.claim_id for fact in await subject.provider.observe([])}
        assert subject.truth() <= listed, f"cancelled at step {step}: something exists that is not listed"
        await subject.provider.release(claim.id)
        await gone(subject, claim.id)
        assert subject.machines(claim.id) == 0


async def ensure_after_a_cancelled_one_completes_it(subject: Subject) -> None:
    for step in range(4):
        claim = subject.claim()
        call = asyncio.ensure_future(subject.provider.ensure(claim))
        await subject.pass_time(0.03 * step)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await subject.provider.ensure(claim)
        await settled(subject, claim.id)
        assert subject.machines(claim.id) == claim.count
        await _clean(subject, claim)


async def preemption_becomes_a_fact(subject: Subject) -> None:
    claim = subject.claim()
    await subject.provider.ensure(claim)
    await settled(subject, claim.id)
    await subject.preempt(claim.id)
    await settled(subject, claim.id, ClaimState.PREEMPTED)
    assert subject.machines(claim.id) == 0
    await _clean(subject, claim)


async def nodes_rest_and_come_back(subject: Subject) -> None:
    claim = subject.claim()
    resting = msgspec.structs.replace(claim, desired=Desired.STOP)
    if not subject.provider.manifest.capabilities.stop:
        await subject.provider.ensure(claim)
        await _raises(border.Unsupported, subject.provider.ensure(resting))
        await _clean(subject, claim)
        return
    await subject.provider.ensure(claim)
    before = await settled(subject, claim.id)
    await subject.provider.ensure(resting)
    await subject.provider.ensure(resting)
    await settled(subject, claim.id, ClaimState.STOPPED)
    assert subject.machines(claim.id) == 0
    await subject.provider.ensure(claim)
    after = await settled(subject, claim.id)
    assert [n.address for n in before.nodes] == [n.address for n in after.nodes]
    await subject.provider.ensure(resting)
    await _clean(subject, claim)


async def what_is_not_declared_is_refused(subject: Subject) -> None:
    can = subject.provider.manifest.capabilities
    claim = subject.claim()
    choice = claim.choice
    if not can.spot:
        offer = msgspec.structs.replace(choice.offer, capacity=Capacity.SPOT)
        spot = msgspec.structs.replace(claim, choice=msgspec.structs.replace(choice, offer=offer))
        await _raises(border.Unsupported, subject.provider.ensure(spot))
    if not can.multi_node:
        await _raises(border.Unsupported, subject.provider.ensure(msgspec.structs.replace(claim, count=2)))
    if not can.fractions:
        part = msgspec.structs.replace(choice, accelerators_milli=250)
        await _raises(
            border.Unsupported, subject.provider.ensure(msgspec.structs.replace(claim, choice=part))
        )
    assert claim.id not in subject.truth()


async def a_claim_for_somebody_else_is_refused(subject: Subject) -> None:
    claim = subject.claim()
    offer = msgspec.structs.replace(claim.choice.offer, provider="somebody-else")
    wrong = msgspec.structs.replace(claim, choice=msgspec.structs.replace(claim.choice, offer=offer))
    await _raises(border.RequestRefused, subject.provider.ensure(wrong))
    assert claim.id not in subject.truth()


async def reach_leads_to_the_agent_and_nowhere_else(subject: Subject) -> None:
    claim = subject.claim()
    await subject.provider.ensure(claim)
    fact = await settled(subject, claim.id)
    name = subject.provider.manifest.name
    node = a_node(claim_id=claim.id, provider=name, address=fact.nodes[0].address)
    channel = await subject.provider.reach(node)
    channel.writer.close()
    await _clean(subject, claim)
    await _raises(border.Unreachable, subject.provider.reach(node))


async def secrets_appear_nowhere(subject: Subject) -> None:
    claim = subject.claim()
    said = [repr(subject.provider), repr(subject.provider.manifest)]
    said += [repr(finding) for finding in await subject.provider.check()]
    said += [repr(offer) for offer in await subject.provider.quote(Want())]
    await subject.provider.ensure(claim)
    said.append(repr(await settled(subject, claim.id)))
    try:
        await subject.provider.ensure(subject.too_large())
    except border.BorderError as error:
        said.append(f"{error!r} {error} {error.__dict__}")
    await _clean(subject, claim)
    for secret in subject.secrets:
        assert not [text for text in said if secret in text], "a secret was told"


CASES: Final[tuple[Case, ...]] = (
    the_manifest_is_plain_data,
    check_says_what_to_do,
    quoted_offers_are_whole_and_declared,
    the_tag_of_a_claim_comes_back,
    ensure_twice_is_one,
    concurrent_ensures_are_one,
    a_lost_reply_of_ensure_is_harmless,
    a_lost_reply_of_release_is_harmless,
    release_twice_and_of_the_unknown_succeeds,
    release_while_booting_leaves_nothing,
    a_released_claim_does_not_come_back,
    observe_shows_all_and_only_ours,
    a_gang_is_all_or_none,
    cancelled_in_mid_call_leaves_nothing_unowned,
    ensure_after_a_cancelled_one_completes_it,
    preemption_becomes_a_fact,
    nodes_rest_and_come_back,
    what_is_not_declared_is_refused,
    a_claim_for_somebody_else_is_refused,
    reach_leads_to_the_agent_and_nowhere_else,
    secrets_appear_nowhere,
)


def case_name(case: Case) -> str:
    return getattr(case, "__name__", repr(case))


def _needs(subject: Subject, capability: str) -> None:
    if not getattr(subject.provider.manifest.capabilities, capability):
        raise NotDeclared(f"{subject.provider.manifest.name} does not declare `{capability}`")


async def _raises(kind: type[border.BorderError], call: Awaitable[object]) -> None:
    try:
        await call
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


async def _clean(subject: Subject, claim: Claim) -> None:
    await subject.provider.release(claim.id)
    await gone(subject, claim.id)
