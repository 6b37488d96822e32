"""What the value of a field becomes in the model. Called by the reader, which knows the place; ValueError is
an error."""

from __future__ import annotations

from argosy.model.resources import Accelerator, Autostop, Recovery
from argosy.spec.accelerators import Alternatives, parse_accelerator
from argosy.spec.notation import parse_price
from argosy.spec.shapes import Entry, Section

IDLE_DEFAULT_S = 300  # `autostop: true`


def make_accelerators(value: object) -> Alternatives:
    """One wish, a list (in order of preference), or a mapping or set (any of them)."""
    if isinstance(value, Accelerator):
        return Alternatives((value,))
    if not isinstance(value, tuple) or not value:
        raise ValueError("there is no accelerator in it; leave `accelerators` out to ask for none")
    wishes: list[Accelerator] = []
    for entry in (one for each in value for one in (each if isinstance(each, tuple) else (each,))):
        wish = entry.key if isinstance(entry, Entry) else entry
        if not isinstance(wish, Accelerator):
            raise TypeError(wish)
        if isinstance(entry, Entry) and isinstance(entry.value, int):
            if wish.milli != 1000:
                raise ValueError(f"`{wish.render()}` has a count both in its name and in its value")
            wish = Accelerator(
                model=wish.model,
                milli=entry.value,
                memory_min_bytes=wish.memory_min_bytes,
                vendor=wish.vendor,
            )
        if wish not in wishes:
            wishes.append(wish)
    ordered = len(wishes) > 1 and not any(isinstance(entry, Entry) for entry in value)
    return Alternatives(tuple(wishes), ordered)


def make_accelerator(text: str) -> Accelerator:
    return parse_accelerator(text)


def make_autostop(value: object) -> Autostop:
    """Minutes, a duration in seconds, a boolean, or a table. A negative number is never."""
    if isinstance(value, bool):
        return Autostop(idle_s=IDLE_DEFAULT_S if value else None)
    if isinstance(value, int):  # seconds
        return Autostop(idle_s=value if value >= 0 else None)
    if not isinstance(value, Section):
        raise TypeError(value)
    idle_s, max_s = value.get("idle_minutes", int), value.get("max_duration", int)
    if idle_s is None:
        idle_s = IDLE_DEFAULT_S if max_s is None else -1
    return Autostop(
        idle_s=idle_s if idle_s >= 0 else None,
        down=value.get("down", bool) or False,
        wait_for=value.get("wait_for", str) or Autostop().wait_for,
        max_s=max_s,
    )


def make_recovery(value: object) -> Recovery:
    """A strategy, or a table. `auto` is the default strategy."""
    if isinstance(value, str):
        return Recovery(strategy=_strategy(value))
    if not isinstance(value, Section):
        raise TypeError(value)
    codes = value.values.get("recover_on_exit_codes", ())
    if not isinstance(codes, tuple):
        raise TypeError(codes)
    return Recovery(
        strategy=_strategy(value.get("strategy", str)),
        max_restarts_on_errors=value.get("max_restarts_on_errors", int) or 0,
        recover_on_exit_codes=tuple(dict.fromkeys(code for code in codes if isinstance(code, int))),
        at_most_once=value.get("at_most_once", bool),
    )


def _strategy(word: str | None) -> str | None:
    return None if word in (None, "auto", "none") else word


def make_unique(value: object) -> tuple[str, ...]:
    """A tuple of texts, each once."""
    if not isinstance(value, tuple):
        raise TypeError(value)
    return tuple(dict.fromkeys(str(item) for item in value))


def make_text_pairs(value: object) -> tuple[tuple[str, str], ...]:
    """A mapping of texts as sorted pairs."""
    if not isinstance(value, tuple):
        raise TypeError(value)
    return tuple(sorted((str(entry.key), str(entry.value)) for entry in value))


def make_price(text: str) -> int:
    return parse_price(text)
