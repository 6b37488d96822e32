"""Which replica of a language model answers a prompt soonest, from what one gateway knows by itself.

What a replica still has to read is counted in units (tokens, and a little for each pair of them); how many
seconds a unit takes is learned of each replica from the times until first bytes. The default rule takes the
least of

    seconds for what waits there + 2 x seconds for what it does not have cached + 0.05 s x requests there

The second part counts twice, because what is read anew also drives somebody else's prompt out of the
cache, who pays again. Nothing here knows of HTTP: the simulation of the benchmark calls the same code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from argosy.gateway.prefixes import Prefixes

PAIR: Final = 2.4e-5  # of a unit, for each pair of tokens of a prompt: attention
GUESS_S: Final = 100e-6  # seconds for one unit, before anything was measured
LEAST_S: Final = 1e-9
FADE: Final = 0.98  # what one observation leaves of the weight of those before
PRIOR: Final = 4.0  # the guess counts as so many observations of `PRIOR_UNITS`
PRIOR_UNITS: Final = 1000.0
CAPACITY: Final = 16_384  # blocks of one replica, where nobody tells: rather too many than too few

Rule = Literal["prefix-aware", "least-work", "least-tokens"]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a rule weighs."""

    rule: Rule = "prefix-aware"
    miss: float = 1.0  # what is not cached counts 1 + `miss` times
    each_s: float = 0.05  # for each request that is there
    capacity: int = CAPACITY
    block: int = 512  # tokens of one key


def units(tokens: int, context: int = 0) -> float:
    """Work to read `tokens` more behind `context` that is cached."""
    return tokens + PAIR * tokens * (context + tokens / 2)


class Prompt:
    """What is asked: `keys` of its blocks and its length; `answer` is how many tokens may come back."""

    __slots__ = ("answer", "hits", "keys", "tokens")

    def __init__(self, keys: Sequence[int], tokens: int, answer: int = 0) -> None:
        self.keys, self.tokens, self.answer = keys, tokens, answer
        self.hits: Mapping[int, int] | None = None  # what was found at the choice, until it is sent


class Speed:
    """Seconds for a unit on one replica: the slope of a line through (units that waited, seconds), faded."""

    __slots__ = ("_n", "_x", "_xx", "_xy", "_y", "unit_s")

    def __init__(self, guess_s: float = GUESS_S) -> None:
        self.unit_s = guess_s
        self._n = PRIOR
        self._x = PRIOR * PRIOR_UNITS
        self._xx = PRIOR * PRIOR_UNITS**2
        self._y = PRIOR * PRIOR_UNITS * guess_s
        self._xy = self._xx * guess_s

    def learn(self, waited: float, seconds: float) -> None:
        """A first byte came `seconds` after the request went there, with `waited` units to be read."""
        self._n = FADE * self._n + 1
        self._x = FADE * self._x + waited
        self._y = FADE * self._y + seconds
        self._xx = FADE * self._xx + waited * waited
        self._xy = FADE * self._xy + waited * seconds
        spread = self._xx - self._x * self._x / self._n
        through = self._xy / self._xx if self._xx else self.unit_s
        slope = (self._xy - self._x * self._y / self._n) / spread if spread > 0 else through
        self.unit_s = max(
            min(max(slope, through / 4), through), LEAST_S
        )  # the rest of the time is not reading


class Load:
    """What one gateway has sent to one replica and not seen the end of; `other_*` is what others have."""

    __slots__ = (
        "heard_s", "other_requests", "other_units", "reading", "requests", "since_s", "slot", "speed",
        "tokens", "units",
    )  # fmt: skip

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.speed = Speed()
        self.units = self.other_units = 0.0  # that are still to be read
        self.requests = self.other_requests = 0
        self.tokens = 0  # of prompts and answers
        self.reading: deque[Sent] = deque()  # first come, first read
        self.since_s = self.heard_s = 0.0  # when the first of them began; when others last told theirs

    def waiting(self, now_s: float) -> float:
        """Units that are still to be read; between two events it is taken to read all the time."""
        mine, others = self.units, self.other_units
        if mine > 0 and self.reading:
            done = (now_s - self.since_s) / self.speed.unit_s
            most = 0.9 * self.reading[0].units
            mine -= done if done < most else most
        if others > 0:
            others = max(0.0, others - (now_s - self.heard_s) / self.speed.unit_s * others / (mine + others))
        return mine + others


class Sent:
    """One request that is at a replica."""

    __slots__ = ("at_s", "load", "reading", "tokens", "units", "waited")

    def __init__(self, load: Load, units: float, tokens: int, at_s: float) -> None:
        self.load, self.units, self.tokens, self.at_s = load, units, tokens, at_s
        self.waited = load.waiting(at_s) + units
        self.reading = True


class Chooser:
    """The choice for one service, and its books. All calls of one request happen in one turn each."""

    def __init__(self, terms: Terms = Terms(), seed: int = 0) -> None:  # noqa: B008 (frozen)
        self.terms = terms
        self.loads: dict[Hashable, Load] = {}
        self._prefixes = Prefixes(terms.capacity)
        self._free: list[int] = []
        self._turn = seed

    def load(self, replica: Hashable) -> Load:
        """The books of a replica; new ones where it is unknown."""
        found = self.loads.get(replica)
        if found is None:
            slot = self._free.pop() if self._free else len(self.loads)
            found = self.loads[replica] = Load(slot)
        return found

    def keep(self, replicas: Sequence[Hashable]) -> None:
        """Only these are still there."""
        for replica in set(self.loads) - set(replicas):
            slot = self.loads.pop(replica).slot
            self._prefixes.drop(slot)
            self._free.append(slot)

    def choose(self, prompt: Prompt, replicas: Sequence[Hashable], now_s: float) -> int:
        """The index of the replica that is to answer."""
        return self.choose_among(prompt, [self.load(replica) for replica in replicas], now_s)

    def choose_among(self, prompt: Prompt, loads: Sequence[Load], now_s: float) -> int:
        """The same by the books of the replicas."""
        terms = self.terms
        if terms.rule == "least-tokens":
            return self._least([float(load.tokens) for load in loads])
        hits = self._prefixes.match(prompt.keys) if terms.rule == "prefix-aware" else {}
        prompt.hits = hits
        twice, each_s = 1 + terms.miss, terms.each_s
        fresh = twice * units(prompt.tokens)
        costs, reads = [], dict[int, float]()  # what is left to be read, by hit
        for load in loads:
            own, unit_s = fresh, load.speed.unit_s
            if hits and (hit := hits.get(load.slot)) is not None:
                own = reads.get(hit, 0.0)
                if not own:
                    own = reads[hit] = twice * self._units(prompt, hit)
            if load.other_units:
                own += load.waiting(now_s)
            elif load.reading:  # the same, written out: most calls of all
                done, most = (now_s - load.since_s) / unit_s, 0.9 * load.reading[0].units
                own += load.units - (done if done < most else most)
            costs.append(unit_s * own + each_s * (load.requests + load.other_requests))
        return self._least(costs)

    def _units(self, prompt: Prompt, hit: int) -> float:
        cached = min(hit * self.terms.block, prompt.tokens - 1)
        return units(prompt.tokens - cached, cached)

    def _least(self, costs: Sequence[float]) -> int:
        low = min(costs)
        if costs.count(low) == 1:
            return costs.index(low)
        best = [index for index, cost in enumerate(costs) if cost <= low]
        self._turn = (self._turn * 6364136223846793005 + 1442695040888963407) & ((1 << 64) - 1)
        return best[(self._turn >> 33) % len(best)]

    def sent(self, prompt: Prompt, replica: Hashable, now_s: float) -> Sent:
        """It goes there; in the same turn as the choice, so that the next one sees it."""
        return self.sent_to(prompt, self.load(replica), now_s)

    def sent_to(self, prompt: Prompt, load: Load, now_s: float) -> Sent:
        """The same by the books of the replica."""
        hit = 0
        if self.terms.rule == "prefix-aware":
            hits = prompt.hits if prompt.hits is not None else self._prefixes.match(prompt.keys)
            hit, prompt.hits = hits.get(load.slot, 0), None
            self._prefixes.add(load.slot, prompt.keys)
        sent = Sent(load, self._units(prompt, hit), prompt.tokens + prompt.answer, now_s)
        if not load.reading:
            load.since_s = now_s
        load.reading.append(sent)
        load.units += sent.units
        load.requests += 1
        load.tokens += sent.tokens
        return sent

    def first_byte(self, sent: Sent, now_s: float) -> None:
        """Its prompt was read."""
        if sent.reading:
            self._read(sent)
            sent.load.since_s = now_s
            sent.load.speed.learn(sent.waited, now_s - sent.at_s)

    def _read(self, sent: Sent) -> None:
        sent.reading = False
        load = sent.load
        load.reading.remove(sent)
        load.units = max(0.0, load.units - sent.units) if load.reading else 0.0

    def ended(self, sent: Sent) -> None:
        """It is no longer there, for whatever reason."""
        if sent.reading:
            self._read(sent)
        sent.load.requests -= 1
        sent.load.tokens -= sent.tokens
