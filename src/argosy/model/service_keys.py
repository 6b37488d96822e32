"""Keys of requests to services: their limits, their budgets, and what requests cost. Pure.

Prices are micro-USD for a million, so one token costs so many pico-USD: every amount is an integer.
"""

from __future__ import annotations

import datetime
from typing import Final, Literal

import msgspec

from argosy.model.entry import Entry

#: Pico-USD in one micro-USD.
PICO: Final = 1_000_000
#: Over what time a budget is spent: days and months of UTC.
Period = Literal["day", "month"]
_DAY_MS: Final = 86_400_000


class Prices(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What requests to a service cost, in micro-USD for a million of each."""

    input: int = 0  # tokens of prompts
    output: int = 0  # tokens of answers
    requests: int = 0

    def __bool__(self) -> bool:
        return bool(self.input or self.output or self.requests)

    def cost_pico(self, taken: int, made: int) -> int:
        """Of one request with so many tokens in its prompt and its answer, in pico-USD.

        >>> Prices(input=250_000, output=2_000_000, requests=5).cost_pico(1000, 100)
        450000005
        """
        return taken * self.input + made * self.output + self.requests


class AccessKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who may send requests to a service, and how many; 0 is no limit. Of the secret its SHA-256 is kept."""

    name: str
    sha256: str  # hexadecimal
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_concurrency: int = 0
    budget_micro_usd: int = 0  # in one period
    period: Period = "month"
    expires_ms: int = 0  # 0: never
    made_ms: int = 0


class ModelKey(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="model-key"):
    """A key of all language models of a project, those to come too. Its limits are for all together."""

    project: str
    key: AccessKey

    @property
    def unique(self) -> str:
        return f"model-key:{self.project}:{self.key.name}" if self.is_live else ""

    @property
    def of(self) -> str:
        return f"model-keys:{self.project}"


class KeyUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was used with one key: since its gateways count, and of its budget in this period."""

    requests: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    spent_micro_usd: int = 0
    last_use_ms: int = 0


def number_of(period: Period, at_ms: int) -> int:
    """Periods are numbered: two moments are in the same one when their numbers are equal.

    >>> number_of("day", 86_400_000), number_of("month", 0) == number_of("month", 30 * 86_400_000)
    (1, True)
    """
    if period == "day":
        return at_ms // _DAY_MS
    day = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
    return day.year * 12 + day.month - 1


def end_ms(period: Period, at_ms: int) -> int:
    """When the period of a moment is over.

    >>> end_ms("month", 0) == 31 * 86_400_000, end_ms("day", 1)
    (True, 86400000)
    """
    if period == "day":
        return (at_ms // _DAY_MS + 1) * _DAY_MS
    year, month = divmod(number_of("month", at_ms) + 1, 12)
    return int(datetime.datetime(year, month + 1, 1, tzinfo=datetime.UTC).timestamp() * 1000)
