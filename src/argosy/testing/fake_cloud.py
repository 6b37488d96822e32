"""What all fake clouds share: a strict web server in threads, machines with a life, and knobs for what goes
wrong.

    class FakeX(FakeCloud):
        @route("POST", "/v1/machines", body=Launch)
        def launch(self, ask: Ask[Launch]) -> object: ...

    with FakeX(now=clock.now_s) as cloud:
        cloud.url, cloud.capacity[("gpu_1x", "east")] = 1

Strict: an unknown path, parameter or field is refused, as is a wrong credential. Knobs: capacity and quotas,
listings that lag, replies that are lost, calls that are refused, limits of calls, web pages instead of
answers, a clock that is off. With `hosts` a real host stands behind each machine.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

import msgspec

from argosy.testing.cloud_hosts import CloudHosts
from argosy.testing.http_fake import Answer as Answer
from argosy.testing.http_fake import HttpFake

B = TypeVar("B")
F = TypeVar("F", bound=Callable[..., Any])
_PAGE: Final = b"<!DOCTYPE html><html><body><h1>Sign in to the network</h1></body></html>"


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """`{}`"""


class AddKey(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    public_key: str


@dataclass(frozen=True)
class Ask(Generic[B]):
    """One request, checked. `parts`: what stands in the path for its `{names}`."""

    parts: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: B
    method: str = ""
    target: str = ""  # path and query as they were sent

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Shortage(Exception):
    """The cloud has no such machine left; a fake answers it in its own words."""


class OverQuota(Exception):
    """The account may not have more; `str` is the limit."""


@dataclass
class FakeMachine:
    """`state`: starting | running | stopping | stopped | ending | ended | preempted | failed."""

    id: str
    name: str
    region: str
    zone: str
    kind: str
    labels: dict[str, str]
    user_data: bytes
    spot: bool
    created_s: float
    ip: str  # "": no host stands behind it
    state: str = "starting"
    due: tuple[float, str] | None = None  # when, and the state that it then has
    extra: dict[str, Any] = field(default_factory=dict)  # whatever else its API shows

    @property
    def is_live(self) -> bool:
        return self.state in ("starting", "running", "stopping", "stopped")


@dataclass(frozen=True)
class _Route:
    method: str
    path: re.Pattern[str]
    body: Any
    query: frozenset[str]
    open: bool


def route(
    method: str, path: str, *, body: Any = None, query: Iterable[str] = (), open: bool = False
) -> Callable[[F], F]:
    """The handler of one call. `body`: the struct that its JSON must be, with `forbid_unknown_fields`, or
    `bytes` for a body that the handler reads itself;
    `query`: parameters that it knows; `open`: it asks for no credentials."""
    pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)) + "$")

    def mark(handler: F) -> F:
        routes = [*getattr(handler, "routes", ()), _Route(method, pattern, body, frozenset(query), open)]
        handler.routes = routes  # type: ignore[attr-defined]
        return handler

    return mark


class FakeCloud(HttpFake):
    """One account. `now`: its clock in seconds; `boot_s`, `end_s`: how long machines start and end; `lag_s`:
    so long after an order listings do not show it."""

    bearer = ""  # a bearer token, unless the fake knows its callers in another way
    #: What the API says, as status, code and text, when there is no machine left and when there are too many.
    none_left: tuple[int, str, str] = (503, "insufficient-capacity", "Not enough capacity: {}")
    over_limit: tuple[int, str, str] = (403, "quota-exceeded", "Quota exceeded: limit {}")
    missing = "not found"  # what it says of a machine that is not there
    keeps = False  # whether a reset leaves everything as it is
    _routes: tuple[tuple[str, _Route], ...] = ()  # with the names of their handlers

    def __init_subclass__(cls) -> None:
        cls._routes = tuple(
            (name, way) for name in dir(cls) for way in getattr(getattr(cls, name, None), "routes", ())
        )

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.time,
        boot_s: float = 0.0,
        end_s: float = 0.0,
        lag_s: float = 0.0,
        hosts: CloudHosts | None = None,
    ) -> None:
        self.now, self.hosts = now, hosts
        self.lock = threading.RLock()
        self._delays = (boot_s, end_s, lag_s)
        self.made: dict[str, FakeMachine] = {}
        self.reset()

    def reset(self) -> None:
        """Everything is as at the start; with `keeps`, only the knobs."""
        with self.lock:
            if self.keeps:
                self.hangs_at = 0
                return
            if self.hosts is not None:
                for each in list(self.made):
                    self.hosts.destroy(each)
            self.boot_s, self.end_s, self.lag_s = self._delays
            self.made = {}
            self.capacity: dict[tuple[str, str], int] = {}  # (type, zone, region or "") -> machines
            self.quota: int | None = None  # live machines that the account may have
            self.calls: list[tuple[str, Ask[Any]]] = []  # (handler, request)
            self.lost: list[str] = []  # handlers whose next reply does not arrive, though it takes effect
            self.refusals: list[tuple[str, Answer]] = []  # (handler or "", what it answers)
            self.rates: dict[str, tuple[int, float]] = {}  # handler or "" -> (calls, within seconds)
            self.expired = False  # whether credentials are
            self.pages = 0  # so many calls are answered with a web page
            self.skew_s = 0.0  # its clock less the true one
            self.hangs_at = 0  # the reply of this call, counted from 1, never comes; 0: of none
            self.hung = threading.Event()
            self.answered = 0
            self._asked_s: dict[str, list[float]] = {}
            self._numbers = itertools.count(1)
            self.begin()

    def begin(self) -> None:
        """What else the fake starts with."""

    # -- what a fake says in its own words ------------------------------------------------------------------

    def knows(self, ask: Ask[Any]) -> bool:
        """Whether the credentials of a request are ours."""
        return bool(self.bearer) and ask.headers.get("authorization") == f"Bearer {self.bearer}"

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        """An error in this API's shape. `code`: unauthorized | forbidden | not-found | invalid | busy |
        rate, or a code of its own."""
        return Answer(status, {"error": {"code": code, "message": text}})

    def shortage(self, text: str) -> Answer:
        status, code, words = self.none_left
        return self.error(status, code, words.format(text))

    def over_quota(self, limit: str) -> Answer:
        status, code, words = self.over_limit
        return self.error(status, code, words.format(limit))

    # -- knobs ----------------------------------------------------------------------------------------------

    def refuse(self, handler: str, answer: Answer, times: int = 1) -> None:
        """The next calls of a handler ("": of any) are answered so and have no effect."""
        self.refusals += [(handler, answer)] * times

    def preempt(self, machine: FakeMachine) -> None:
        """The cloud takes a machine back: it is gone, and its listing says so as long as this cloud does."""
        with self.lock:
            self._power_off(machine)
            machine.state, machine.due = "preempted", None

    def order(
        self,
        *,
        name: str,
        kind: str,
        region: str = "",
        zone: str = "",
        labels: Mapping[str, str] | None = None,
        user_data: bytes = b"",
        spot: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> FakeMachine:
        """Make a machine. Raises `Shortage`, `OverQuota`."""
        with self.lock:
            live = [each for each in self.made.values() if each.is_live]
            if self.quota is not None and len(live) >= self.quota:
                raise OverQuota(str(self.quota))
            for place in {zone, region, ""}:
                alike = [each for each in live if each.kind == kind and place in ("", each.zone, each.region)]
                if (kind, place) in self.capacity and len(alike) >= self.capacity[(kind, place)]:
                    raise Shortage(f"{kind} in {zone or region or 'this cloud'}")
            number = next(self._numbers)
            ip = self.hosts.address() if self.hosts is not None else ""
            machine = FakeMachine(
                id=self.new_id(number),
                name=name,
                region=region,
                zone=zone,
                kind=kind,
                labels=dict(labels or {}),
                user_data=user_data,
                spot=spot,
                created_s=self.now(),
                ip=ip,
                due=(self.now() + self.boot_s, "running"),
                extra=dict(extra or {}),
            )
            self.made[machine.id] = machine
            if self.hosts is not None:
                self.hosts.boot(machine.id, ip, user_data)
            self.settle()
            return machine

    def new_id(self, number: int) -> str:
        return f"m-{number:08x}"

    def end(self, machine: FakeMachine) -> None:
        with self.lock:
            if machine.state not in ("ending", "ended"):
                self._power_off(machine)
                machine.state, machine.due = "ending", (self.now() + self.end_s, "ended")
                self.settle()

    def rest(self, machine: FakeMachine) -> None:
        with self.lock:
            if machine.state in ("starting", "running"):
                if self.hosts is not None:
                    self.hosts.power_off(machine.id)
                machine.state, machine.due = "stopping", (self.now() + self.end_s, "stopped")
                self.settle()

    def wake(self, machine: FakeMachine) -> None:
        with self.lock:
            if machine.state == "stopped":
                if self.hosts is not None:
                    self.hosts.power_on(machine.id)
                machine.state, machine.due = "starting", (self.now() + self.boot_s, "running")
                self.settle()

    def _power_off(self, machine: FakeMachine) -> None:
        if self.hosts is not None:
            self.hosts.destroy(machine.id)

    # -- the truth ------------------------------------------------------------------------------------------

    def settle(self) -> None:
        with self.lock:
            for each in self.made.values():
                if each.due is not None and self.now() >= each.due[0]:
                    each.state, each.due = each.due[1], None

    def machines(self, *states: str) -> list[FakeMachine]:
        """All in these states (none: all that live), also those that listings do not show yet."""
        with self.lock:
            self.settle()
            return [each for each in self.made.values() if (each.state in states if states else each.is_live)]

    def shown(self) -> list[FakeMachine]:
        """What a listing shows now: not what was ordered a moment ago, nor what is gone."""
        with self.lock:
            self.settle()
            known = [each for each in self.made.values() if self.now() - each.created_s >= self.lag_s]
            return [each for each in known if each.state != "ended"]

    def bare(self, machine: FakeMachine, told: dict[str, Any], id_field: str) -> dict[str, Any]:
        """What is told of a machine: of one with `extra["bare"]` nothing but its id, as of what other people
        made in other ways."""
        return told if not machine.extra.get("bare") else dict.fromkeys(told) | {id_field: told[id_field]}

    def find(self, id: str) -> FakeMachine | None:
        with self.lock:
            self.settle()
            found = self.made.get(id)
            return found if found is not None and found.state != "ended" else None

    def found(self, ask: Ask[Any]) -> FakeMachine:
        """The machine that a path names by its `{id}`."""
        machine = self.find(ask.parts["id"])
        if machine is None:
            raise self.error(404, "not-found", self.missing)
        return machine

    def called(self, handler: str) -> list[Ask[Any]]:
        return [ask for name, ask in self.calls if name == handler]

    # -- the server -----------------------------------------------------------------------------------------

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.reset()

    def date_s(self) -> float:
        return self.now() + self.skew_s

    def serve(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """The answer to a request; None: it does not arrive."""
        place = urllib.parse.urlsplit(target)
        path = urllib.parse.unquote(place.path)
        query = dict(urllib.parse.parse_qsl(place.query, keep_blank_values=True))
        found = self._routed(method, path)
        with self.lock:
            if self.pages > 0:
                self.pages -= 1
                return Answer(200, _PAGE, {"content-type": "text/html"})
            if found is None:
                return self.error(404, "not-found", f"there is no {method} {path}")
            name, handler, way, parts = found
            try:
                ask = self._checked(name, way, Ask(parts, query, headers, body, method, target))
                self.calls.append((name, ask))
                answer = handler(ask)
            except Answer as refusal:
                answer = refusal
            except Shortage as shortage:
                answer = self.shortage(str(shortage))
            except OverQuota as quota:
                answer = self.over_quota(str(quota))
            if name in self.lost:
                self.lost.remove(name)
                return None
            return answer if isinstance(answer, Answer) else Answer(200, answer)

    def hangs(self) -> bool:
        with self.lock:
            self.answered += 1
            hangs = self.answered == self.hangs_at
        if hangs:
            self.hung.set()
        return hangs

    def _routed(self, method: str, path: str) -> tuple[str, Any, _Route, dict[str, str]] | None:
        for name, way in self._routes:
            match = way.path.match(path) if way.method == method else None
            if match is not None:
                return name, getattr(self, name), way, match.groupdict()
        return None

    def _checked(self, name: str, way: _Route, ask: Ask[bytes]) -> Ask[Any]:
        if not way.open and (self.expired or not self.knows(ask)):
            raise self.error(401, "unauthorized", "the credentials are not valid")
        for handler, answer in self.refusals:
            if handler in ("", name):
                self.refusals.remove((handler, answer))
                raise answer
        for limited in (name, ""):
            if limited in self.rates:
                self._count(limited)
        unknown = ask.query.keys() - way.query
        if unknown:
            raise self.error(400, "invalid", f"unknown parameter: {', '.join(sorted(unknown))}")
        if way.body is bytes:
            return ask
        if way.body is None:
            if ask.body.strip():
                raise self.error(400, "invalid", "this call takes no body")
            return Ask(ask.parts, ask.query, ask.headers, None, ask.method, ask.target)
        try:
            body = msgspec.json.decode(ask.body, type=way.body)
        except msgspec.MsgspecError as error:
            raise self.error(400, "invalid", str(error)) from None
        return Ask(ask.parts, ask.query, ask.headers, body, ask.method, ask.target)

    def _count(self, limited: str) -> None:
        most, within_s = self.rates[limited]
        asked = [at for at in self._asked_s.get(limited, ()) if self.now() - at < within_s]
        self._asked_s[limited] = [*asked, self.now()]
        if len(asked) >= most:
            raise self.error(429, "rate", "too many requests")
