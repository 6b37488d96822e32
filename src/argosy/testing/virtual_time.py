"""Virtual time: an asyncio loop that never waits. When nothing is ready, its clock jumps to the next timer.

Hours pass in milliseconds, and the same seed gives the same run. Threads are not allowed inside: work that is
handed to an executor runs at once, in place. Two mistakes that real time hides become errors:
`Deadlock` (nothing is scheduled and the main coroutine is not done) and `Livelock` (time stands still).
"""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from argosy.model.ids import make_id

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_MS: Final = 1_750_000_000_000  # where virtual wall clocks start; any date will do
_TURNS_MAX: Final = 200_000  # turns of the loop without time going on


class Deadlock(AssertionError):
    """Nothing is scheduled and the main coroutine waits: somebody forgot to wake it."""


class Livelock(AssertionError):
    """Callbacks keep running and no time passes."""


class _JumpingSelector(selectors.BaseSelector):
    """Answers at once: where a real selector would sleep, the loop's clock is moved on."""

    def __init__(self) -> None:
        self.loop: VirtualLoop | None = None
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._turns = 0
        self.count = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(
            fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data
        )
        self._keys[key.fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.count += 1
        if timeout is not None and timeout <= 0:
            self._turns += 1
            if self._turns > _TURNS_MAX:
                self._turns = 0  # the tasks that are cancelled next get a chance of their own
                raise Livelock(
                    f"{_TURNS_MAX} turns of the loop and no time has passed\n{_tasks_text(self.loop)}"
                )
            return []
        self._turns = 0
        if timeout is None:
            raise Deadlock(f"nothing is scheduled and the main coroutine waits\n{_tasks_text(self.loop)}")
        if self.loop is not None:
            self.loop.jump(timeout)
        return []


def _tasks_text(loop: asyncio.AbstractEventLoop | None) -> str:
    lines = []
    for task in asyncio.all_tasks(loop) if loop is not None else ():
        frames = task.get_stack(limit=1)
        place = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "?"
        lines.append(f"  {task.get_name()} at {place}")
    return "\n".join(sorted(lines))


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and moves only when nothing is left to do."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        self._virtual_s = 0.0
        self._jumping = selector
        super().__init__(selector)
        selector.loop = self
        self.failures: list[str] = []  # what asyncio would only have logged: exceptions that nobody awaited
        self.set_exception_handler(self._note_failure)

    def time(self) -> float:
        return self._virtual_s

    @property
    def turns(self) -> int:
        """How often the loop has turned: what a run costs, the same on every machine."""
        return self._jumping.count

    def jump(self, seconds: float) -> None:
        # Rounded up to whole microseconds: sums of floats would otherwise stop short of the timer and spin.
        self._virtual_s = math.ceil((self._virtual_s + seconds) * 1e6 - 1e-3) / 1e6

    def run_in_executor(
        self, executor: object, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  a future carries whatever the function raised
            future.set_exception(error)
        return future

    def _note_failure(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")


def run_virtual(main: Coroutine[Any, Any, T], seed: int = 0) -> T:
    """Runs `main` to its end in virtual time. Global dice are seeded too, for code that should not use them.

    Raises what `main` raises, `Deadlock`, or `Livelock`.

    >>> run_virtual(asyncio.sleep(3600, "an hour later"))
    'an hour later'
    """
    state = random.getstate()
    random.seed(seed)
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_rest(loop)
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            random.setstate(state)


def _cancel_rest(loop: VirtualLoop) -> None:
    rest = sorted(
        (task for task in asyncio.all_tasks(loop) if not task.done()), key=lambda task: task.get_name()
    )
    for task in rest:
        task.cancel()
    if rest:
        try:
            loop.run_until_complete(asyncio.wait(rest, timeout=60))
        except (Deadlock, Livelock):
            return
    loop.run_until_complete(loop.shutdown_asyncgens())


class SimClock:
    """`model.ids.Clock` on the running virtual loop. The wall clock may be set wrong; the monotonic one may
    not."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, *, start_ms: int = EPOCH_MS) -> None:
        self._loop = loop
        self._start_ms = start_ms
        self.skew_ms = 0

    def monotonic_s(self) -> float:
        return (self._loop or asyncio.get_running_loop()).time()

    def now_ms(self) -> int:
        loop = self._loop or asyncio.get_running_loop()
        return self._start_ms + self.skew_ms + round(loop.time() * 1000)

    def step_wall(self, by_ms: int) -> None:
        """The fault of an NTP step or a hand on the clock: now it is `by_ms` later (or, below 0, earlier)."""
        self.skew_ms += by_ms


class FixedClock:
    """`model.ids.Clock` for tests without a loop: stands still until `advance`d."""

    def __init__(self, now_ms: int = EPOCH_MS) -> None:
        self._now_ms = now_ms
        self._passed_s = 0.0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._passed_s

    def advance(self, seconds: float) -> None:
        self._now_ms += round(seconds * 1000)
        self._passed_s += seconds


class SimIds:
    """`model.ids.Ids` from a seed: the same seed gives the same ids, in rising order."""

    def __init__(self, seed: int = 0) -> None:
        self._dice = random.Random(seed)
        self._count = 0

    def new(self, prefix: str) -> str:
        self._count += 1
        return make_id(prefix, self._count, self._dice.getrandbits(50))
