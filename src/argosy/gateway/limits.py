"""API keys and their limits: who may ask, how often, for how many tokens, how many at once."""

from __future__ import annotations

import collections
import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from argosy.gateway.exchange import Answer, Exchange, refusal
from argosy.gateway.shared import Board
from argosy.model.routes import KeyCounters, KeyRoute

#: So many wrong keys an address may show in a minute; then it waits, unless it shows a key that worked from
#: there.
GUESSES: Final = 20
_GUESS_S: Final = 60.0
_ADDRESSES: Final = 10_000
_MINUTE_S: Final = 60.0
_ANSWER_TOKENS: Final = 512  # what a request is taken to make when it does not say


class Key:
    """One key with what is left of its limits, which all workers share."""

    __slots__ = ("_board", "_row", "counters", "digest", "route")

    _REQUESTS, _TOKENS = 0, 2  # columns: level and time of two buckets

    def __init__(self, route: KeyRoute, board: Board, row: int) -> None:
        self.route = route
        self.digest = bytes.fromhex(route.sha256)
        self.counters = KeyCounters(id=route.id)
        self._board = board
        self._row = row

    @property
    def is_limited(self) -> bool:
        route = self.route
        return bool(route.requests_per_minute or route.tokens_per_minute or route.max_concurrency)

    def admit(self, tokens: int, now_s: float) -> tuple[str, float]:
        """Take a request with so many tokens from the limits, all or none. What is short and for how
        many seconds; "": it was admitted."""
        route, board, row = self.route, self._board, self._row
        if not self.is_limited:
            return "", 0.0
        with board.lock():
            if route.max_concurrency and board.in_flight(row) >= route.max_concurrency:
                return "requests at once", 1.0
            asked = min(tokens, route.tokens_per_minute)
            for what, column, limit, amount in (
                ("requests per minute", self._REQUESTS, route.requests_per_minute, 1),
                ("tokens per minute", self._TOKENS, route.tokens_per_minute, asked),
            ):
                short_s = board.missing_s(row, column, limit, amount, now_s) if limit else 0.0
                if short_s > 0:
                    return what, short_s
            if route.requests_per_minute:
                board.take(row, self._REQUESTS, 1)
            if route.tokens_per_minute:
                board.take(row, self._TOKENS, asked)
            board.begin(row)
        return "", 0.0

    def settle(self, reserved: int, used: int) -> None:
        """The request has ended: it used so many tokens."""
        route = self.route
        if not self.is_limited:
            return
        with self._board.lock():
            self._board.end(self._row)
            if route.tokens_per_minute:
                self._board.take(self._row, self._TOKENS, used - min(reserved, route.tokens_per_minute))

    def fields(self) -> bytes:
        """What the client is told about its limits."""
        route, lines = self.route, b""
        for name, column, limit in (
            (b"requests", self._REQUESTS, route.requests_per_minute),
            (b"tokens", self._TOKENS, route.tokens_per_minute),
        ):
            if limit:
                left = max(0, int(self._board.level(self._row, column)))
                lines += b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\n" % (
                    name,
                    limit,
                    name,
                    left,
                )
        return lines


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

    def take_routes(self, routes: tuple[KeyRoute, ...]) -> None:
        """The keys of a new table. Counters and limits of those that stay go on."""
        before = {key.route.id: key for key in self._by_digest.values()}
        self._by_digest = {}
        for route in routes:
            row = self._board.row(key_row(self._service, route.id))
            key = before.get(route.id) or Key(route, self._board, row)
            key.route, key.digest = route, bytes.fromhex(route.sha256)
            self._by_digest[key.digest] = key

    def find(self, exchange: Exchange, *, notes: bool = True) -> Key | Answer:
        """The key that a request shows, or why it is refused. `notes`: a wrong key counts as a guess."""
        shown = key_of(exchange)
        if not shown:
            return _unauthorized("a key is needed: say `Authorization: Bearer KEY`")
        digest = hashlib.sha256(shown).digest()
        key = self._by_digest.get(digest)
        if key is not None and not hmac.compare_digest(key.digest, digest):
            key = None
        if key is not None and 0 < key.route.expires_at_ms <= self._now_ms():
            key = None
        if self._is_guessing(exchange.ip) and (key is None or (exchange.ip, key.route.id) not in self._known):
            return refusal(429, "too-many-guesses", "too many wrong keys came from this address",
                           fields=b"retry-after: 60\r\n")  # fmt: skip
        if key is None:
            if notes:
                self._note_guess(exchange.ip)
            return _unauthorized("the key is not valid here")
        self._known[exchange.ip, key.route.id] = None
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
        return [key.counters for key in self._by_digest.values()]


def key_row(service: str, key: str) -> str:
    """The name of its row on the board: keys of two services may have one name."""
    return f"key/{service}/{key}"


def key_of(exchange: Exchange) -> bytes:
    """The key that a request shows, as `Authorization: Bearer` or `X-Api-Key`."""
    head = exchange.head
    kind, _, value = (head.get(b"authorization") or b"").partition(b" ")
    if kind.lower() == b"bearer":
        return value.strip(b" ")
    return head.get(b"x-api-key") or b""


def _unauthorized(text: str) -> Answer:
    return refusal(401, "unauthorized", text, fields=b'www-authenticate: Bearer realm="argosy"\r\n')


def limited(what: str, after_s: float) -> Answer:
    """The refusal of a request that is over a limit."""
    text = f"the key is at its limit of {what}"
    return refusal(429, "rate-limited", text, fields=b"retry-after: %d\r\n" % max(1, round(after_s + 0.499)))


def expected_tokens(size: int, max_tokens: int) -> int:
    """What a request may use: four bytes of text are about one token."""
    return size // 4 + (max_tokens or _ANSWER_TOKENS)
