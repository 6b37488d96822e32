"""Balancers that look at prompts: `prefix-aware`, `least-work`, `least-tokens`; `choosing` has the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, cast

from argosy.gateway.choosing import Chooser, Prompt, Rule, Sent, Terms
from argosy.gateway.exchange import Exchange
from argosy.gateway.prompts import BLOCK_BYTES, TOKEN_BYTES, read_prompt
from argosy.gateway.replicas import Replica
from argosy.model.routes import Policy

BODY_LIMIT: Final = 32 << 20  # requests with images are long
#: So many answers a replica makes at once before they become slower.
BATCH: Final = 20
_FORGOTTEN: Final = 16  # so many replicas that are gone may be in the books
RULES: Final = ("prefix-aware", "least-work", "least-tokens")


class Language:
    """The balancer of one service whose requests are prompts."""

    body_limit = BODY_LIMIT

    def __init__(self, policy: Policy, now_s: Callable[[], float]) -> None:
        rule = cast(Rule, policy.name)
        self._now_s = now_s
        self._chooser = Chooser(Terms(rule=rule, block=BLOCK_BYTES // TOKEN_BYTES))
        self._prompts: dict[Exchange, Prompt] = {}
        self._sent: dict[Exchange, Sent] = {}
        self.work_s = 0.0  # reading of prompts, and a part of the replica while an answer is made
        self._units = 0.0  # of all requests that were sent
        self._count = 0

    def choose(self, exchange: Exchange, ready: Sequence[Replica]) -> Replica:
        prompt = self._prompt(exchange)
        mean = self._units / self._count if self._count else 0.0
        now_s = self._now_s()
        for replica in ready:
            load = self._chooser.load(replica.id)
            if replica.elsewhere or load.other_requests:
                load.other_requests = replica.elsewhere
                load.other_units = mean * replica.elsewhere / 2  # the other half is being answered
                load.heard_s = now_s
        if len(self._chooser.loads) > len(ready) + _FORGOTTEN:
            self._chooser.keep([replica.id for replica in ready])
        return ready[self._chooser.choose(prompt, [replica.id for replica in ready], now_s)]

    def _prompt(self, exchange: Exchange) -> Prompt:
        found = self._prompts.get(exchange)
        if found is None:
            found = self._prompts[exchange] = read_prompt(exchange.body, exchange.asked)
        return found

    def sent(self, exchange: Exchange, replica: Replica) -> None:
        sent = self._chooser.sent(self._prompt(exchange), replica.id, self._now_s())
        self._sent[exchange] = sent
        self._units += sent.units
        self._count += 1

    def first_byte(self, exchange: Exchange, replica: Replica) -> None:
        sent = self._sent.get(exchange)
        if sent is not None and 200 <= exchange.status < 300:  # a refusal says nothing of its speed
            self._chooser.first_byte(sent, self._now_s())

    def ended(self, exchange: Exchange, replica: Replica) -> None:
        self._prompts.pop(exchange, None)
        sent = self._sent.pop(exchange, None)
        if sent is not None:
            self.work_s += sent.units * sent.load.speed.unit_s
            if exchange.first_s:
                self.work_s += max(0.0, self._now_s() - exchange.first_s) / BATCH
            self._chooser.ended(sent)
