"""Fetches the numbers that services follow: lengths of queues, answers of Prometheus and of other addresses.

Blocking; called in threads. Only the number comes back, and addresses of the machine's own network services
(metadata of clouds) are refused.
"""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from argosy.model.scaling import Trigger

TIMEOUT_S: Final = 5.0
_MOST: Final = 1 << 20  # bytes of an answer


class Value(NamedTuple):
    """The number of a trigger now."""

    number: float
    note: str = ""  # what its owner should know of it


class TriggerError(Exception):
    """A trigger has no value now; the text says why."""


def fetch_value(trigger: Trigger) -> Value:
    """The number of a trigger now. Raises TriggerError."""
    read = READERS.get(trigger.kind)
    if read is None:
        raise TriggerError(f"triggers of type `{trigger.kind}` are not followed")
    try:
        found = read(trigger.metadata)
        return found if isinstance(found, Value) else Value(found)
    except TriggerError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise TriggerError(f"{trigger.name}: {type(error).__name__}: {error}") from error


def _prometheus(metadata: Mapping[str, str]) -> Value:
    """The first value of a query; nothing found is 0, as KEDA has it."""
    query = urllib.parse.urlencode({"query": metadata["query"]})
    found = _get_json(f"{metadata['serverAddress'].rstrip('/')}/api/v1/query?{query}")
    result = found["data"]["result"]
    if found["data"]["resultType"] == "scalar":
        return Value(float(result[1]))
    if len(result) > 1:
        raise TriggerError(f"the query gives {len(result)} series; write one that gives a single one")
    if not result:
        return Value(0.0, "its query finds nothing, which counts as 0: is there such a metric?")
    return Value(float(result[0]["value"][1]))


def _metrics_api(metadata: Mapping[str, str]) -> float:
    """A number in a JSON document, at a path of names and places between dots."""
    found: Any = _get_json(metadata["url"])  # Any: JSON of somebody else
    for part in metadata["valueLocation"].split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return float(found)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _get_json(url: str) -> Any:  # Any: JSON of somebody else
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TriggerError(f"`{url}` is no http address")
    _check_host(parts.hostname)
    opener = urllib.request.build_opener(_NoRedirect)
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310 (checked above)
    with opener.open(request, timeout=TIMEOUT_S) as answer:
        return json.loads(answer.read(_MOST))


def _check_host(host: str) -> None:
    """Raises TriggerError for what belongs to the network itself."""
    for found in {info[4][0] for info in socket.getaddrinfo(host, None)}:
        address = ip_address(str(found).partition("%")[0])
        if address.is_link_local or address.is_multicast or address == ip_address("fd00:ec2::254"):
            raise TriggerError(f"`{host}` is an address of the network itself")


def _redis(metadata: Mapping[str, str]) -> float:
    """The length of a list."""
    host, _, port = (
        metadata.get("address") or f"{metadata['host']}:{metadata.get('port', '6379')}"
    ).rpartition(":")
    _check_host(host)
    with (
        socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as sock,
        sock.makefile("rb") as answers,
    ):
        database = metadata.get("databaseIndex", "0")
        for words in (["SELECT", database], ["LLEN", metadata["listName"]]):
            sock.sendall(b"*%d\r\n" % len(words))
            for word in words:
                data = word.encode()
                sock.sendall(b"$%d\r\n%b\r\n" % (len(data), data))
            line = answers.readline(_MOST)
            if line[:1] not in (b"+", b":"):
                raise TriggerError(f"redis says: {line.decode('utf-8', 'replace').strip()}")
        return float(line[1:])


def _sqs(metadata: Mapping[str, str]) -> float:
    """Messages that wait, and those in flight unless the trigger says otherwise."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise TriggerError("queues of SQS need `pip install argosy[aws]` on the server") from None
    names = ["ApproximateNumberOfMessages"]
    if metadata.get("scaleOnInFlight", "true").lower() != "false":
        names.append("ApproximateNumberOfMessagesNotVisible")
    if metadata.get("scaleOnDelayed", "false").lower() == "true":
        names.append("ApproximateNumberOfMessagesDelayed")
    url = metadata["queueURL"]
    host = urllib.parse.urlsplit(url).hostname or ""
    region = metadata.get("awsRegion") or (host.split(".")[1] if host.startswith("sqs.") else None)
    try:
        client = boto3.client("sqs", region_name=region, endpoint_url=metadata.get("awsEndpoint"))
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    except (BotoCoreError, ClientError) as error:
        raise TriggerError(str(error)) from error
    return float(sum(int(found.get(name, 0)) for name in names))


def _kafka(metadata: Mapping[str, str]) -> float:
    """Messages that a group has not done yet, of all partitions of a topic, as KEDA counts them."""
    from argosy.infra.kafka_lag import KafkaError, lags

    servers = []
    for each in metadata["bootstrapServers"].split(","):
        host, _, port = each.strip().rpartition(":")
        if not host or not port.isdigit():
            raise TriggerError(f"`{each.strip()}` is no server: write `HOST:9092`")
        servers.append((host, int(port)))
    try:
        found = lags(
            servers,
            metadata["consumerGroup"],
            metadata["topic"],
            tls=metadata.get("tls", "disable") == "enable",
            check=_check_host,
        )
    except KafkaError as error:
        raise TriggerError(str(error)) from error
    return kafka_value([each.behind(*_kafka_start(metadata)) for each in found.values()], metadata)


def _kafka_start(metadata: Mapping[str, str]) -> tuple[bool, int]:
    """(a group that has done nothing yet begins at the first message, what it counts as otherwise)."""
    from_first = metadata.get("offsetResetPolicy", "latest") == "earliest"
    return from_first, 0 if metadata.get("scaleToZeroOnInvalidOffset", "false").lower() == "true" else 1


def kafka_value(behind: list[int], metadata: Mapping[str, str]) -> float:
    """More replicas than partitions would be idle, so that no more is counted than these can take.

    >>> kafka_value([500, 3], {"lagThreshold": "10"}), kafka_value([500], {"allowIdleConsumers": "true"})
    (20.0, 500.0)
    """
    total = sum(behind)
    if metadata.get("allowIdleConsumers", "false").lower() == "true":
        return float(total)
    return float(min(total, len(behind) * float(metadata.get("lagThreshold", "10"))))


READERS: Final[dict[str, Callable[[Mapping[str, str]], Value | float]]] = {
    "prometheus": _prometheus,
    "metrics-api": _metrics_api,
    "redis": _redis,
    "aws-sqs-queue": _sqs,
    "kafka": _kafka,
}
