"""API keys and their limits: who may ask, how often, for how many tokens, how many at once."""

from __future__ import annotations

import collections
import datetime
import hmac
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from argosy.gateway.exchange import Answer, Exchange, refusal
from argosy.gateway.shared import Board
from argosy.model.routes import KeyCounters, KeyRoute
from argosy.model.service_keys import PICO, Prices, end_ms, number_of
from argosy.model.units import render_price

#: So many wrong keys an address may show in a minute; then it waits, unless it shows a key that worked from
#: there.
GUESSES: Final = 20
_GUESS_S: Final = 60.0
_ADDRESSES: Final = 10_000
_ANSWER_TOKENS: Final = 512  # what a request is taken to make when it does not say
_LEFT_REQUESTS: Final = b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\n"
_LEFT_TOKENS: Final = b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\n"


class Expected(msgspec.Struct, frozen=True):
    """Tokens that a request may use: of its prompt, of its answer."""

    taken: int = 0
    made: int = 0


class Reserved(msgspec.Struct, frozen=True):
    """What was taken from the limits of a key for a request that is under way."""

    row: int
    tokens: int = 0
    micro_usd: int = 0


_NOTHING: Final = Reserved(row=-1)


class Key:
    """One key with what is left of its limits, which all workers share."""

    __slots__ = (
        "_board", "_now_ms", "_row", "counters", "counts_tokens", "digest", "is_limited", "prices", "route",
    )  # fmt: skip

    _REQUESTS, _TOKENS = 0, 2  # columns: level and time of two buckets

    def __init__(self, route: KeyRoute, board: Board, row: int, now_ms: Callable[[], int]) -> None:
        self.prices = Prices()
        self._now_ms = now_ms
        self.counters = KeyCounters(id=route.id)
        self._board = board
        self._row = row
        self.take_route(route, self.prices)

    def take_route(self, route: KeyRoute, prices: Prices) -> None:
        """What a new table says of it."""
        self.route, self.prices, self.digest = route, prices, bytes.fromhex(route.sha256)
        #: It has to be known beforehand how many tokens a request may use.
        self.counts_tokens = bool(route.tokens_per_minute or route.budget_micro_usd)
        self.is_limited = bool(self.counts_tokens or route.requests_per_minute or route.max_concurrency)

    def admit(self, expected: Expected, now_s: float) -> Reserved | Answer:
        """Take a request from the limits, all or none; or say which of them is short."""
        route, board, row = self.route, self._board, self._row
        if not self.is_limited:
            return _NOTHING
        tokens = min(expected.taken + expected.made, route.tokens_per_minute)
        cost = 0
        with board.lock():
            if route.max_concurrency and board.in_flight(row) >= route.max_concurrency:
                return limited("requests at once", 1.0)
            if route.budget_micro_usd:
                cost = -(-self.prices.cost_pico(expected.taken, expected.made) // PICO)
                refused = self._check_budget(cost)
                if refused is not None:
                    return refused
            each = route.requests_per_minute
            if each and (short_s := board.missing_s(row, self._REQUESTS, each, 1, now_s)) > 0:
                return limited("requests per minute", short_s)
            most = route.tokens_per_minute
            if most and (short_s := board.missing_s(row, self._TOKENS, most, tokens, now_s)) > 0:
                return limited("tokens per minute", short_s)
            if each:
                board.take(row, self._REQUESTS, 1)
            if tokens:
                board.take(row, self._TOKENS, tokens)
            if cost:
                board.hold_back(row, cost)
            board.begin(row)
        return Reserved(row=row, tokens=tokens, micro_usd=cost)

    def _check_budget(self, cost: int) -> Answer | None:
        """Why a request that may cost so many micro-USD cannot be paid; the lock is held."""
        route, now_ms = self.route, self._now_ms()
        left = route.budget_micro_usd - self.spent_micro_usd
        held = self._board.held_back(self._row)
        if left > held and left >= cost + held:
            return None
        said = (
            f"the key `{route.id}` has {render_price(max(0, left))} left of its budget of "
            f"{render_price(route.budget_micro_usd)} a {route.period}"
        )
        if left > 0 and left >= cost:
            text = f"{said}, and requests that are under way may cost that: try again when they have ended"
            return refusal(429, "budget-held", text, fields=b"retry-after: 1\r\n")
        over_ms = end_ms(route.period, now_ms)
        day = datetime.datetime.fromtimestamp(over_ms / 1000, datetime.UTC)
        text = (
            f"{said}, and this request may cost {render_price(cost)}: ask for fewer tokens, wait until "
            f"{day:%Y-%m-%d} 00:00 UTC, or have the budget raised"
        )
        return refusal(
            402, "budget-spent", text, fields=b"retry-after: %d\r\n" % ((over_ms - now_ms) // 1000 + 1)
        )

    @property
    def spent_micro_usd(self) -> int:
        """Of its budget, in the period that it is now."""
        if not self.route.budget_micro_usd:
            return 0
        return self._board.spent(self._row, number_of(self.route.period, self._now_ms()))

    def settle(self, reserved: Reserved, taken: int, made: int, *, charged: bool) -> None:
        """The request has ended: it used so many tokens, and, where `charged`, its price."""
        if reserved is _NOTHING:
            return
        route, board, row = self.route, self._board, reserved.row
        with board.lock():
            board.end(row)
            if reserved.micro_usd:
                board.hold_back(row, -reserved.micro_usd)
            if route.tokens_per_minute:
                board.take(row, self._TOKENS, taken + made - reserved.tokens)
            if charged and route.budget_micro_usd:
                period = number_of(route.period, self._now_ms())
                board.spend(row, period, self.prices.cost_pico(taken, made))

    def fields(self) -> bytes:
        """What the client is told about its limits."""
        route, lines = self.route, b""
        if route.requests_per_minute:
            left = int(self._board.level(self._row, self._REQUESTS))
            lines = _LEFT_REQUESTS % (route.requests_per_minute, left if left > 0 else 0)
        if route.tokens_per_minute:
            left = int(self._board.level(self._row, self._TOKENS))
            lines += _LEFT_TOKENS % (route.tokens_per_minute, left if left > 0 else 0)
        if route.budget_micro_usd:
            left = max(0, route.budget_micro_usd - self.spent_micro_usd)
            lines += b"x-ratelimit-remaining-micro-usd: %d\r\n" % left
        return lines

    def tell(self) -> KeyCounters:
        """The counters of this moment."""
        self.counters.spent_micro_usd = self.spent_micro_usd
        return self.counters


class Keys:
    """The keys of one service."""

    def __init__(
        self, service: str, board: Board, now_s: Callable[[], float], now_ms: Callable[[], int]
    ) -> None:
        self._service = service  # its id
        self._board = board
        self._now_s = now_s
        self._now_ms = now_ms
        self._by_digest: dict[bytes, Key] = {}
        self._guesses: collections.OrderedDict[bytes, tuple[float, int]] = collections.OrderedDict()
        self._known: collections.OrderedDict[tuple[bytes, str], None] = collections.OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._by_digest)

    @property
    def digests(self) -> Iterable[bytes]:
        """SHA-256 of each."""
        return self._by_digest.keys()

    def ends(self, digest: bytes) -> bool:
        """A key is good until some time only."""
        key = self._by_digest.get(digest)
        return key is None or key.route.expires_at_ms > 0

    def take_routes(self, routes: tuple[KeyRoute, ...], prices: Prices) -> None:
        """The keys of a new table. Counters and limits of those that stay go on."""
        before = {key_row(self._service, key.route): key for key in self._by_digest.values()}
        self._by_digest = {}
        for route in routes:
            name = key_row(self._service, route)
            key = before.get(name) or Key(route, self._board, self._board.row(name), self._now_ms)
            key.take_route(route, prices)
            self._by_digest[key.digest] = key

    def find(self, exchange: Exchange, *, notes: bool = True) -> Key | Answer:
        """The key that a request shows, or why it is refused. `notes`: a wrong key counts as a guess."""
        digest = exchange.head.key_digest()
        if not digest:
            return _unauthorized("a key is needed: say `Authorization: Bearer KEY`")
        key = self._by_digest.get(digest)
        if key is not None and not hmac.compare_digest(key.digest, digest):
            key = None
        if key is not None and 0 < key.route.expires_at_ms <= self._now_ms():
            key = None
        if (
            self._guesses
            and self._is_guessing(exchange.ip)
            and (key is None or (exchange.ip, key.route.id) not in self._known)
        ):
            return refusal(429, "too-many-guesses", "too many wrong keys came from this address",
                           fields=b"retry-after: 60\r\n")  # fmt: skip
        if key is None:
            if notes:
                self._note_guess(exchange.ip)
            return _unauthorized("the key is not valid here")
        known = (exchange.ip, key.route.id)
        if known not in self._known:
            self._known[known] = None
            if len(self._known) > _ADDRESSES:
                self._known.popitem(last=False)
        return key

    def _is_guessing(self, ip: bytes) -> bool:
        since_s, count = self._guesses.get(ip, (0.0, 0))
        return count >= GUESSES and self._now_s() - since_s < _GUESS_S

    def _note_guess(self, ip: bytes) -> None:
        now_s = self._now_s()
        since_s, count = self._guesses.pop(ip, (now_s, 0))
        self._guesses[ip] = (since_s, count + 1) if now_s - since_s < _GUESS_S else (now_s, 1)
        if len(self._guesses) > _ADDRESSES:
            self._guesses.popitem(last=False)

    def tell(self) -> list[KeyCounters]:
        return [key.tell() for key in self._by_digest.values()]


def key_row(service: str, key: KeyRoute) -> str:
    """The name of its row on the board: keys of two services may have one name, one key may be of many."""
    return f"key/{key.scope or service}/{key.id}"


def _unauthorized(text: str) -> Answer:
    return refusal(401, "unauthorized", text, fields=b'www-authenticate: Bearer realm="argosy"\r\n')


def limited(what: str, after_s: float) -> Answer:
    """The refusal of a request that is over a limit."""
    text = f"the key is at its limit of {what}"
    return refusal(429, "rate-limited", text, fields=b"retry-after: %d\r\n" % max(1, round(after_s + 0.499)))


def expected_tokens(size: int, max_tokens: int) -> Expected:
    """What a request may use: four bytes of text are about one token."""
    return Expected(size // 4, max_tokens or _ANSWER_TOKENS)
