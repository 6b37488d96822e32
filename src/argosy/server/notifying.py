"""Tells people of events: reads the outbox, sends, tries again with growing pauses. At least once for each
address; nothing is lost over a restart."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.kinds import kind_of, label
from argosy.model.notify import Notify, Told, is_channel, occasion_of, opened, sealed_id
from argosy.model.rows import Event, Workload
from argosy.server.channels import ChannelFile
from argosy.store.outbox import Letter
from argosy.store.store import Store

if TYPE_CHECKING:
    from argosy.server.sending import Message

_log: Final = logging.getLogger(__name__)
_AT_ONCE: Final = 8
_FIRST_S: Final = 2.0  # the pause after the first try that failed; then twice as long each time
_LONGEST_S: Final = 900.0
_GIVEN_UP_S: Final = 86_400.0
_LEASE_MS: Final = 60_000


class Notifier:
    """One for each server; of several, the one that has the lease sends. Also what the controllers ask which
    events somebody wants to hear of."""

    def __init__(self, store: Store, channels: ChannelFile, clock: Clock, holder: str) -> None:
        self._store, self._channels, self._clock, self._holder = store, channels, clock, holder
        self._news = asyncio.Event()

    def wants(self, project: str, occasion: str) -> bool:
        return bool(self._channels.of_project(project, occasion))

    def wake(self) -> None:
        self._news.set()

    async def run(self) -> None:
        """Until cancelled. Sleeps while there is nothing to tell."""
        while True:
            self._news.clear()
            try:
                wait_s = await self.step()
            except (ArgosyError, OSError) as error:
                _log.warning("what people are to be told is looked at again later: %s", error)
                wait_s = 5.0
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def step(self) -> float | None:
        """Send what is due. In how many seconds to look again; None: when there is news."""
        due_ms = await self._store.next_letter_ms()
        if due_ms is None:
            return None
        now_ms = self._clock.now_ms()
        if due_ms > now_ms:
            return min(60.0, (due_ms - now_ms) / 1000)
        if not await self._store.lease("notify", self._holder, _LEASE_MS):
            return 5.0
        letters = await self._store.load_letters(now_ms)
        limit = asyncio.Semaphore(_AT_ONCE)

        by_subject: dict[str, list[Letter]] = {}
        for letter in letters:
            by_subject.setdefault(letter.subject, []).append(letter)

        async def tell(some: list[Letter]) -> None:  # of one job in the order in which it happened
            for letter in some:
                async with limit:
                    await self._deliver(letter)

        await asyncio.gather(*map(tell, by_subject.values()))
        return 0.0

    async def _deliver(self, letter: Letter) -> None:
        # Here, not above: clients of HTTP and SMTP are loaded when somebody is to be told something.
        from argosy.server.sending import NotSent, send

        row = await self._store.load(letter.subject)
        if not isinstance(row, Workload):
            await self._store.drop_letter(letter.seq)
            return
        message = _message(letter, row)
        done, failed = list(letter.done), False
        for name, wish in await self._addresses(row, message.event):
            if name in done:
                continue
            try:
                await asyncio.to_thread(send, wish.to, wish.secret, message, self._channels.smtp)
                done.append(name)
            except NotSent as error:
                if error.for_good:
                    await self._give_up(letter, name, str(error))
                    done.append(name)
                else:
                    _log.info("%s is not told of event %d yet: %s", name, letter.seq, error)
                    failed = True
        now_ms = self._clock.now_ms()
        if failed and now_ms - letter.at_ms < _GIVEN_UP_S * 1000:
            pause_s = min(_LONGEST_S, _FIRST_S * 2**letter.tries)
            await self._store.keep_letter(
                msgspec.structs.replace(
                    letter, done=tuple(done), tries=letter.tries + 1, due_ms=now_ms + int(pause_s * 1000)
                )
            )
            return
        if failed:
            await self._give_up(letter, "somebody", "for a day nothing took it")
        told = kind_of(row).told(row)
        over = not row.is_live and told is not None and told.owner_id == row.id
        await self._store.drop_letter(letter.seq, forget=sealed_id(row.id) if over else "")

    async def _addresses(self, row: Workload, occasion: str) -> list[tuple[str, Notify]]:
        """(name, address) of everybody who is to be told of this."""
        told = kind_of(row).told(row) or Told(row.id, "", ())
        kept = await self._store.load_secrets(sealed_id(told.owner_id)) if told.wishes else {}
        found: dict[str, Notify] = {}
        for at, wish in enumerate(opened(told, kept)):
            if occasion not in wish.on:
                continue
            if is_channel(wish.to):
                channel = self._channels.channel(wish.to)
                if channel is not None:
                    found[wish.to] = Notify(to=channel.to, on=wish.on, secret=channel.secret)
            elif "://" in wish.to or "@" in wish.to:
                found[f"address {at + 1}"] = wish
        if row.parent_id is None:
            for name, wish in self._channels.of_project(row.project, occasion):
                found.setdefault(name, wish)
        return list(found.items())

    async def _give_up(self, letter: Letter, name: str, why: str) -> None:
        _log.warning("%s is never told of event %d: %s", name, letter.seq, why)
        text = f"{name} could not be told that it {occasion_of(letter.code)}: {why}"
        event = Event(at_ms=self._clock.now_ms(), subject=letter.subject, code="not-told", text=text)
        await self._store.commit(events=[event])


def _message(letter: Letter, row: Workload) -> Message:
    from argosy.server.sending import Message

    return Message(
        delivery=letter.seq,
        event=occasion_of(letter.code),
        code=letter.code,
        at_ms=letter.at_ms,
        job=label(row),
        id=row.id,
        name=row.name,
        project=row.project,
        user=row.user,
        text=letter.text,
    )
