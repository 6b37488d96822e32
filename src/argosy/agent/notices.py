"""What this machine is told about its own end, by the metadata service of whoever it is rented from, or by
a file that a batch system's script writes.

Only the machine itself can ask there. A notice has the fields of `argosy.model.facts.Notice`. AWS and Azure
are asked every second; Google answers when there is news.
"""

from __future__ import annotations

import asyncio
import json
import time
from calendar import timegm
from email.utils import mktime_tz, parsedate_tz

from argosy.agent.rank import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Notice = dict[str, object]
    Source = Callable[["Metadata"], Awaitable[Notice | None]]

LINK_LOCAL = "http://169.254.169.254"
_EVERY_S = 1.0
_ANSWER_S = 5.0
_WAIT_S = 60  # for Google's next answer
_RETRY_S = 10.0  # a service that is not there will hardly come
_TOKEN_S = 21600
_PREEMPTED_IN_MS = 30_000  # so long Google lets a preempted machine live
_LIMIT_BYTES = 256 << 10
#: Azure's events after which programs do not go on; others last seconds.
_AZURE = {
    "Preempt": "terminate",
    "Terminate": "terminate",
    "Reboot": "maintenance",
    "Redeploy": "maintenance",
}


class Metadata:
    """HTTP to the metadata service. Raises OSError and ValueError."""

    def __init__(self, url: str) -> None:
        self.url = url
        place = url.split("://", 1)[-1].rstrip("/")
        self._host, _, port = place.partition(":")
        self._port = int(port) if port.isdigit() else 80
        self.token = ""  # AWS's
        self.machine = ""  # Azure's name of this machine
        self.etag = "0"  # Google's: what we know
        self.news: Notice | None = None

    async def call(
        self, method: str, path: str, headers: Mapping[str, str], limit_s: float = _ANSWER_S
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers (names in lower case) and text of the answer."""
        return await asyncio.wait_for(self._call(method, path, headers), limit_s)

    async def _call(
        self, method: str, path: str, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], str]:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=_LIMIT_BYTES)
        try:
            lines = ["%s %s HTTP/1.1" % (method, path), "Host: " + self._host, "Connection: close"]
            lines += ["Content-Length: 0"] + ["%s: %s" % item for item in headers.items()]
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            told = {}
            for line in head[1:]:
                name, _, value = line.partition(":")
                told[name.strip().lower()] = value.strip()
            size = told.get("content-length", "")
            body = await (reader.readexactly(int(size)) if size.isdigit() else reader.read(_LIMIT_BYTES))
            return int(head[0].split()[1]), told, body.decode("utf-8", "replace")
        except (EOFError, IndexError, asyncio.LimitOverrunError):
            raise OSError("it broke off") from None
        finally:
            writer.close()


async def of_aws(service: Metadata) -> Notice | None:
    """Instance metadata, version 2 (with a token)."""
    interruption = await _aws(service, "/latest/meta-data/spot/instance-action")
    if interruption:
        told = json.loads(interruption)
        action = str(told["action"])
        return _notice(action, _iso_ms(str(told["time"])), "spot instance: %s at %s" % (action, told["time"]))
    rebalance = await _aws(service, "/latest/meta-data/events/recommendations/rebalance")
    if rebalance:
        told = json.loads(rebalance)
        return _notice("rebalance", _iso_ms(str(told["noticeTime"])), "rebalance recommendation")
    return None


async def _aws(service: Metadata, path: str) -> str:
    """What is there; "" for nothing."""
    for _ in range(2):
        if not service.token:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}
            status, _, service.token = await service.call("PUT", "/latest/api/token", headers)
            if status != 200:
                service.token = ""
                raise OSError("it gives no token (%d)" % status)
        status, _, text = await service.call("GET", path, {"X-aws-ec2-metadata-token": service.token})
        if status == 401:  # the token is too old
            service.token = ""
            continue
        return text if status == 200 else ""
    raise OSError("it does not take its own token")


async def of_gcp(service: Metadata) -> Notice | None:
    """Waits until there is news."""
    path = "/computeMetadata/v1/instance/?recursive=true&wait_for_change=true&timeout_sec=%d&last_etag=%s"
    headers = {"Metadata-Flavor": "Google"}
    status, told, text = await service.call(
        "GET", path % (_WAIT_S, service.etag), headers, _WAIT_S + _ANSWER_S
    )
    if status != 200:
        raise OSError("it answers %d" % status)
    if told.get("etag", service.etag) == service.etag:
        return service.news
    service.etag = told["etag"]
    instance = json.loads(text)
    if str(instance.get("preempted", "")).upper() == "TRUE":
        service.news = service.news or _notice(
            "terminate", _now_ms() + _PREEMPTED_IN_MS, "preempted", by_node=True
        )
    elif str(instance.get("maintenanceEvent", "")).startswith("TERMINATE"):
        service.news = _notice(
            "maintenance", _now_ms() + 3_600_000, "TERMINATE_ON_HOST_MAINTENANCE", by_node=True
        )
    else:
        service.news = None
    return service.news


async def of_azure(service: Metadata) -> Notice | None:
    """Scheduled events of this machine; the service also tells those of its neighbours."""
    headers = {"Metadata": "true"}
    if not service.machine:
        path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
        status, _, name = await service.call("GET", path, headers)
        service.machine = name.strip() if status == 200 else ""
    path = "/metadata/scheduledevents?api-version=2020-07-01"
    status, _, text = await service.call(
        "GET", path, headers, 130.0
    )  # its first answer takes up to two minutes
    if status != 200:
        raise OSError("it answers %d" % status)
    for event in json.loads(text).get("Events", []):
        kind, names = str(event.get("EventType")), event.get("Resources", [])
        if kind in _AZURE and (not service.machine or service.machine in names):
            parsed = parsedate_tz(str(event.get("NotBefore", "")))
            at_ms = int(mktime_tz(parsed)) * 1000 if parsed else _now_ms()
            return _notice(_AZURE[kind], at_ms, "scheduled event: %s" % kind, by_node=not parsed)
    return None


async def of_file(service: Metadata) -> Notice | None:
    """A notice as JSON in a file, which a batch system's script writes."""
    try:
        with open(service.url, encoding="utf-8") as file:
            told = json.load(file)
    except FileNotFoundError:
        return None
    return _notice(str(told["code"]), int(told["at_ms"]), str(told.get("text", "")), by_node=True)


SOURCES: dict[str, tuple[Source, float]] = {
    "aws": (of_aws, _EVERY_S),
    "file": (of_file, _EVERY_S),
    "azure": (of_azure, _EVERY_S),
    "gcp": (of_gcp, 0.0),
}


def source_of(option: str) -> tuple[str, str]:
    """Name and URL of `NAME[=URL]`. Raises ValueError."""
    name, _, url = option.partition("=")
    if name not in SOURCES:
        raise ValueError("--notice takes one of %s" % ", ".join(sorted(SOURCES)))
    return name, url or LINK_LOCAL


async def follow(name: str, url: str, told: Callable[[Notice | None], None]) -> None:
    """Call `told` whenever the notice has changed, for ever."""
    ask, every_s = SOURCES[name]
    service = Metadata(url)
    known: Notice | None = None
    silent = False
    while True:
        try:
            notice = await ask(service)
            silent = False
        except (OSError, ValueError, KeyError, TypeError, AttributeError, asyncio.TimeoutError) as error:
            if not silent:
                warn("the metadata service of %s does not answer: %s" % (name, error or type(error).__name__))
            silent = True
            await asyncio.sleep(_RETRY_S if known is None and not service.token else _EVERY_S)
            continue
        if notice != known:
            known = notice
            told(notice)
        await asyncio.sleep(every_s)


def _notice(code: str, at_ms: int, text: str, by_node: bool = False) -> Notice:
    """`by_node`: `at_ms` is by the wall clock of this machine."""
    notice: Notice = {"code": code, "at_ms": at_ms, "text": text}
    if by_node:
        notice["by_node"] = True
    return notice


def _iso_ms(text: str) -> int:
    """`2030-01-31T08:22:00Z` in ms since the epoch. Raises ValueError."""
    return timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 1000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
