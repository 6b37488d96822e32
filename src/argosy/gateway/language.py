"""Balancers that look at prompts: `prefix-aware`, `least-work`, `least-tokens`; `choosing` has the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, cast

from argosy.gateway.choosing import Chooser, Load, Prompt, Rule, Sent, Terms
from argosy.gateway.exchange import Exchange
from argosy.gateway.prompts import BLOCK_BYTES, TOKEN_BYTES, read_prompt
from argosy.gateway.replicas import Replica
from argosy.model.routes import Policy

BODY_LIMIT: Final = 32 << 20  # requests with images are long
#: So many answers a replica makes at once before they become slower.
BATCH: Final = 20
_FORGOTTEN: Final = 16  # so many replicas that are gone may be in the books
RULES: Final = ("prefix-aware", "least-work", "least-tokens")


class Weighed:
    """What is remembered of one request: its prompt, and where it is."""

    __slots__ = ("prompt", "sent")

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.sent: Sent | None = None


class Language:
    """The balancer of one service whose requests are prompts."""

    body_limit = BODY_LIMIT

    def __init__(self, policy: Policy, now_s: Callable[[], float]) -> None:
        rule = cast(Rule, policy.name)
        self._now_s = now_s
        self._chooser = Chooser(Terms(rule=rule, block=BLOCK_BYTES // TOKEN_BYTES))
        self._among: Sequence[Replica] = ()  # of the last choice
        self._loads: list[Load] = []  # theirs
        self.work_s = 0.0  # reading of prompts, and a part of the replica while an answer is made

    def choose(self, exchange: Exchange, ready: Sequence[Replica]) -> Replica:
        weighed = self._weigh(exchange)
        now_s = self._now_s()
        if ready is not self._among:
            self._take_replicas(ready)
        for replica, load in zip(ready, self._loads, strict=True):
            if replica.elsewhere or load.other_requests:
                load.other_requests = replica.elsewhere
                load.other_units, load.heard_s = replica.work_elsewhere, replica.heard_s
        return ready[self._chooser.choose_among(weighed.prompt, self._loads, now_s)]

    def _take_replicas(self, ready: Sequence[Replica]) -> None:
        """Others than at the choice before."""
        chooser = self._chooser
        if len(chooser.loads) > len(ready) + _FORGOTTEN:
            chooser.keep([replica.id for replica in ready])
        self._among, self._loads = ready, [chooser.load(replica.id) for replica in ready]

    def _weigh(self, exchange: Exchange) -> Weighed:
        found = exchange.weighed
        if not isinstance(found, Weighed):
            found = exchange.weighed = Weighed(read_prompt(exchange.body, exchange.asked))
        return found

    def sent(self, exchange: Exchange, replica: Replica) -> None:
        weighed = self._weigh(exchange)
        sent = weighed.sent = self._chooser.sent(weighed.prompt, replica.id, self._now_s())
        replica.note_work(sent.load.units)

    def first_byte(self, exchange: Exchange, replica: Replica) -> None:
        weighed = exchange.weighed
        if isinstance(weighed, Weighed) and weighed.sent is not None and 200 <= exchange.status < 300:
            self._chooser.first_byte(weighed.sent, self._now_s())  # a refusal says nothing of its speed
            replica.note_work(weighed.sent.load.units)

    def ended(self, exchange: Exchange, replica: Replica) -> None:
        weighed = exchange.weighed
        if not isinstance(weighed, Weighed) or weighed.sent is None:
            return
        sent, weighed.sent = weighed.sent, None
        self.work_s += sent.units * sent.load.speed.unit_s
        if exchange.first_s:
            self.work_s += max(0.0, self._now_s() - exchange.first_s) / BATCH
        was_reading = sent.reading
        self._chooser.ended(sent)
        if was_reading:
            replica.note_work(sent.load.units)
