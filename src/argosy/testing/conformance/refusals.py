"""What every driver of a cloud must do when things go wrong, as cases for a `CloudSubject`: credentials that
are refused, a cloud without room, pages instead of answers, and a kill at every call.

    @pytest.mark.parametrize("case", REFUSALS, ids=case_name)
    def test_refusals(case): asyncio.run(case(subject))

    def test_kills(): hold_kills(make_subject)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra import border
from argosy.testing.conformance.cloud import CloudSubject
from argosy.testing.conformance.provider import gone, settled

Case = Callable[[CloudSubject], Awaitable[None]]
CALLS_MAX: Final = 40


async def rejected_credentials_say_what_to_do(subject: CloudSubject) -> None:
    subject.cloud.expired = True
    error = await _error(border.CredentialsRejected, subject.provider.ensure(subject.claim()))
    assert subject.provider.manifest.title in str(error)
    findings = await subject.provider.check()
    assert [finding for finding in findings if not finding.ok and finding.hint], findings
    subject.cloud.expired = False
    assert subject.truth() == set()


async def a_clock_that_is_off_is_named(subject: CloudSubject) -> None:
    subject.cloud.expired, subject.cloud.skew_s = True, 600.0
    error = await _error(border.CredentialsRejected, subject.provider.ensure(subject.claim()))
    assert "clock is 10 minutes behind" in str(error), error


async def a_page_instead_of_an_answer_is_named(subject: CloudSubject) -> None:
    subject.cloud.pages = 100
    error = await _error(border.Transient, subject.provider.ensure(subject.claim()))
    assert "web page" in str(error), error
    subject.cloud.pages = 0


async def too_many_calls_wait_as_long_as_they_are_told(subject: CloudSubject) -> None:
    answer = subject.cloud.error(429, "rate", "too many requests")
    answer.headers["retry-after"] = "3600"
    subject.cloud.refuse("", answer, 100)
    error = await _error(border.Transient, subject.provider.ensure(subject.claim()))
    assert isinstance(error, border.Transient)
    assert error.after_s >= 3600, error.after_s
    subject.cloud.refusals.clear()


async def no_room_leaves_nothing(subject: CloudSubject) -> None:
    claim = subject.claim()
    kind = claim.choice.offer.shape.instance_type
    subject.cloud.capacity[(kind, "")] = 0
    error = await _error(border.OutOfCapacity, subject.provider.ensure(claim))
    assert kind in str(error) or claim.choice.offer.region in str(error), error
    assert subject.truth() == set()


async def a_quota_of_zero_leaves_nothing(subject: CloudSubject) -> None:
    subject.cloud.quota = 0
    claim = subject.claim()
    await _error(border.QuotaExceeded, subject.provider.ensure(claim))
    assert subject.truth() == set()
    assert list(await subject.provider.observe([])) == []


async def an_account_that_nobody_pays_for_is_told(subject: CloudSubject) -> None:
    error = await _refused(subject, 403, "Forbidden", "The billing account of this project is suspended")
    assert isinstance(error, (border.QuotaExceeded, border.CredentialsRejected)), type(error)
    assert "billing" in str(error), error


async def what_an_order_may_not_say_is_told_in_its_words(subject: CloudSubject) -> None:
    """A name, a label or a field that the API does not take."""
    error = await _refused(subject, 400, "InvalidParameter", "the name may have letters and digits only")
    assert isinstance(error, border.RequestRefused), type(error)
    assert "the name may have letters and digits only" in str(error), error


async def an_account_that_is_disabled_is_told(subject: CloudSubject) -> None:
    """Or a project, a subscription, a tenancy."""
    error = await _refused(subject, 403, "AccountDisabled", "this project is disabled")
    assert isinstance(error, (border.CredentialsRejected, border.RequestRefused)), type(error)
    assert "this project is disabled" in str(error), error


async def a_key_that_it_does_not_know_is_told(subject: CloudSubject) -> None:
    """Of a disk, or for logging in: what an order names and is not there."""
    error = await _refused(subject, 404, "NotFound", "the key k-17 does not exist")
    assert isinstance(error, border.RequestRefused), type(error)
    assert "the key k-17 does not exist" in str(error), error


async def a_type_that_it_does_not_have_is_named(subject: CloudSubject) -> None:
    await _unknown(subject, "no-such-type", instance_type="no-such-type")


async def a_region_that_it_does_not_have_is_named(subject: CloudSubject) -> None:
    if subject.claim().choice.offer.region:  # some places are one
        await _unknown(subject, "no-such-region", region="no-such-region", zone="")


async def _unknown(subject: CloudSubject, name: str, instance_type: str = "", **where: str) -> None:
    """Refused by name, never taken for a lack of room that may pass. Nothing is left."""
    claim = subject.claim()
    offer = msgspec.structs.replace(claim.choice.offer, **where)
    if instance_type:
        offer = msgspec.structs.replace(
            offer, shape=msgspec.structs.replace(offer.shape, instance_type=instance_type)
        )
    choice = msgspec.structs.replace(claim.choice, offer=offer)
    error = await _error(
        border.BorderError, subject.provider.ensure(msgspec.structs.replace(claim, choice=choice))
    )
    assert isinstance(error, (border.RequestRefused, border.OutOfCapacity)), (type(error), str(error))
    assert name in str(error), error
    assert subject.truth() == set()


async def _refused(subject: CloudSubject, status: int, code: str, text: str) -> border.BorderError:
    """What `ensure` makes of such an answer to its order. Nothing is left."""
    for call in subject.calls:
        subject.cloud.refuse(call, subject.cloud.error(status, code, text), 100)
    error = await _error(border.BorderError, subject.provider.ensure(subject.claim()))
    subject.cloud.refusals.clear()
    assert subject.provider.manifest.title in str(error), error
    assert subject.truth() == set()
    assert list(await subject.provider.observe([])) == []
    return error


REFUSALS: Final[tuple[Case, ...]] = (
    rejected_credentials_say_what_to_do,
    a_clock_that_is_off_is_named,
    a_page_instead_of_an_answer_is_named,
    too_many_calls_wait_as_long_as_they_are_told,
    no_room_leaves_nothing,
    a_quota_of_zero_leaves_nothing,
    an_account_that_nobody_pays_for_is_told,
    an_account_that_is_disabled_is_told,
    a_key_that_it_does_not_know_is_told,
    a_type_that_it_does_not_have_is_named,
    a_region_that_it_does_not_have_is_named,
    what_an_order_may_not_say_is_told_in_its_words,
)


def hold_kills(make: Callable[[Path], CloudSubject], root: Path, *, count: int = 1, step: int = 1) -> int:
    """Kills the server while it waits for the answer of its first, second, ... call to the cloud, in `ensure`
    and in `release`, and starts another one on the same notes. The claim is made once, and goes. Returns how
    many kills there were.

    Args:
        make: a subject over a state folder; every call of it starts from an empty cloud, unless its state
            folder was used before.
        step: only every so many calls, for clouds that take many; all of them are tried nightly.
    """
    kills = 0
    for call in range(1, CALLS_MAX, step):
        if not _kill_ensure(make, root / f"ensure-{call}", call, count):
            break
        kills += 1
    else:
        raise AssertionError(f"`ensure` makes more than {CALLS_MAX} calls")
    for call in range(1, CALLS_MAX, step):
        if not _kill_release(make, root / f"release-{call}", call, count):
            return kills
        kills += 1
    raise AssertionError(f"`release` makes more than {CALLS_MAX} calls")


def _kill_ensure(make: Callable[[Path], CloudSubject], root: Path, call: int, count: int) -> bool:
    subject = make(root)
    claim = subject.claim(count)
    subject.cloud.hangs_at = call
    killed = asyncio.run(_until_hung(subject, subject.provider.ensure(claim)))
    again = _restarted(make, root, subject)

    async def act() -> None:
        listed = {fact.claim_id for fact in await again.provider.observe([])}
        assert again.truth() <= listed, f"killed at call {call}: something exists that is not listed"
        await _patiently(again, lambda: again.provider.ensure(claim))
        await settled(again, claim.id)
        assert again.machines(claim.id) == claim.count, f"killed at call {call}"
        await again.provider.release(claim.id)
        await gone(again, claim.id)
        await again.driver.disconnect()

    asyncio.run(act())
    return killed


def _kill_release(make: Callable[[Path], CloudSubject], root: Path, call: int, count: int) -> bool:
    subject = make(root)
    claim = subject.claim(count)

    async def begin() -> bool:
        await subject.provider.ensure(claim)
        await settled(subject, claim.id)
        subject.cloud.hangs_at = subject.cloud.answered + call
        return await _until_hung(subject, subject.provider.release(claim.id))

    killed = asyncio.run(begin())
    again = _restarted(make, root, subject)

    async def act() -> None:
        await _patiently(again, lambda: again.provider.release(claim.id))
        await gone(again, claim.id)
        assert again.machines(claim.id) == 0
        await again.driver.disconnect()

    asyncio.run(act())
    return killed


def _restarted(make: Callable[[Path], CloudSubject], root: Path, subject: CloudSubject) -> CloudSubject:
    """Another server on the same notes, and the same cloud as it is now."""
    subject.cloud.keeps = True
    try:
        return make(root)
    finally:
        subject.cloud.keeps = False


async def _until_hung(subject: CloudSubject, call: Awaitable[None]) -> bool:
    """Whether the call came as far as to hang. The loop ends with it, and everything that it did."""
    task = asyncio.ensure_future(call)
    hung = asyncio.ensure_future(asyncio.to_thread(subject.cloud.hung.wait, 30))
    await asyncio.wait([task, hung], return_when=asyncio.FIRST_COMPLETED)
    killed = not task.done()
    subject.cloud.hung.set()  # nobody waits for it any longer
    if not killed:
        await task
    await subject.driver.disconnect()
    return killed


async def _patiently(subject: CloudSubject, call: Callable[[], Awaitable[None]]) -> None:
    """As the server does: again after what passes."""
    for _ in range(60):
        try:
            await call()
        except border.Transient as error:
            await subject.pass_time(max(error.after_s, 1))
        else:
            return
    raise AssertionError("it never succeeded")


async def _error(kind: type[border.BorderError], call: Awaitable[None]) -> border.BorderError:
    try:
        await call
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
