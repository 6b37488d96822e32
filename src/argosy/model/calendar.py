"""Calendar times: whether now lies between two cron expressions. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from argosy.model.scaling import Cron

#: Name, smallest, largest value of each field.
FIELDS: Final = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),
)
MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FURTHEST: Final = 4 * 366  # days: the 29th of February comes back after four years


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """A cron expression, read."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    either: bool  # both kinds of days are restricted: one of them is enough

    def has(self, day: datetime) -> bool:
        """Whether something happens on this day."""
        if day.month not in self.months:
            return False
        by_date, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_date or by_week if self.either else by_date and by_week

    def last(self, now: datetime) -> datetime | None:
        """The newest time that is not after `now`."""
        for back in range(FURTHEST):
            day = (now - timedelta(days=back)).replace(second=0, microsecond=0)
            if not self.has(day):
                continue
            latest = (day.hour, day.minute) if back == 0 else (23, 59)
            for hour in reversed(self.hours):
                fits = [minute for minute in self.minutes if (hour, minute) <= latest]
                if fits:
                    return day.replace(hour=hour, minute=fits[-1])
        return None


@lru_cache(maxsize=512)
def parse_cron(text: str) -> Times:
    """The times of `minute hour day-of-month month day-of-week`.

    Raises ValueError with a sentence that can be shown.
    """
    words = text.split()
    if len(words) != len(FIELDS):
        raise ValueError(
            f"'{text}' has {len(words)} fields; a cron expression has 5 (minute hour day month weekday)"
        )
    sets = [_values(word, *field) for word, field in zip(words, FIELDS, strict=True)]
    return Times(
        minutes=tuple(sorted(sets[0])),
        hours=tuple(sorted(sets[1])),
        days=frozenset(sets[2]),
        months=frozenset(sets[3]),
        weekdays=frozenset(day % 7 for day in sets[4]),
        either=not words[2].startswith("*") and not words[4].startswith("*"),
    )


def _values(word: str, field: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for part in word.lower().split(","):
        span, _, step = part.partition("/")
        if step and (not step.isdigit() or int(step) == 0):
            raise ValueError(f"'{part}' is no {field}: the step must be a number above 0")
        if span in ("*", "?"):
            first, last = low, high
        else:
            begin, dash, end = span.partition("-")
            first = _number(begin, field, low, high)
            last = _number(end, field, low, high) if dash else (high if step else first)
        if last < first:
            raise ValueError(f"'{part}' is no {field}: {first} is after {last}")
        values.update(range(first, last + 1, int(step or 1)))
    return values


def _number(word: str, field: str, low: int, high: int) -> int:
    if field == "month" and word in MONTHS:
        return MONTHS.index(word) + 1
    if field == "day of week" and word in DAYS:
        return DAYS.index(word)
    if not word.isdigit() or not low <= int(word) <= high:
        raise ValueError(f"'{word}' is no {field}: it goes from {low} to {high}")
    return int(word)


def zone_of(name: str) -> tzinfo:
    """Raises ValueError where there is no such time zone."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"'{name}' is no time zone; write one like 'Europe/Berlin' or 'UTC'") from None


def is_between(cron: Cron, now_ms: int) -> bool:
    """Whether its last start is newer than its last end."""
    now = datetime.fromtimestamp(now_ms / 1000, zone_of(cron.timezone))
    begun = parse_cron(cron.start).last(now)
    ended = parse_cron(cron.end).last(now)
    return begun is not None and (ended is None or begun > ended)
