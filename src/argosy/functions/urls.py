"""Requests as events, and what handlers return as answers: function URLs (payload 2.0) and REST (1.0)."""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import Any
from urllib.parse import parse_qsl

from argosy.functions.environments import Outcome
from argosy.functions.settings import Settings
from argosy.functions.wire import Answer, Fields, Request

#: Bodies of these types are texts; all others come in base64.
TEXTS = ("text/", "application/json", "application/xml", "application/javascript", "application/x-www-form")
#: What no handler may set: it belongs to the connection.
OWN = {"content-length", "transfer-encoding", "connection", "date", "keep-alive"}


def event_of(request: Request, settings: Settings, request_id: str, now_s: float) -> bytes:
    """The event of a request to the function's URL, payload 2.0."""
    fields: dict[str, str] = {}
    cookies: list[str] = []
    for name, value in request.fields:
        if name == "cookie":
            cookies.extend(part.strip() for part in value.split(";") if part.strip())
        else:
            fields[name] = f"{fields[name]},{value}" if name in fields else value
    query: dict[str, str] = {}
    for name, value in parse_qsl(request.query, keep_blank_values=True):
        query[name] = f"{query[name]},{value}" if name in query else value
    host = fields.get("x-forwarded-host") or fields.get("host", "function")
    body, coded = _text(request.body, fields.get("content-type", ""))
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": request.path,
        "rawQueryString": request.query,
        "headers": fields,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": settings.name,
            "domainName": host,
            "domainPrefix": host.partition(".")[0],
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": "HTTP/1.1",
                "sourceIp": fields.get("x-forwarded-for", request.peer).partition(",")[0].strip(),
                "userAgent": fields.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now_s)),
            "timeEpoch": int(now_s * 1000),
        },
        "isBase64Encoded": coded,
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = query
    if request.body:
        event["body"] = body
    return json.dumps(event, ensure_ascii=False).encode()


def _text(body: bytes, content_type: str) -> tuple[str, bool]:
    if any(content_type.startswith(kind) for kind in TEXTS) or not content_type:
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), True


def answer_of(outcome: Outcome) -> Answer:
    """The answer to a request whose event ended so."""
    if outcome.error:
        return Answer(502, b"Internal Server Error", [("content-type", "text/plain")])
    if outcome.pieces is not None:
        return Answer(200, fields=[("content-type", outcome.content_type)], pieces=outcome.pieces)
    try:
        result = json.loads(outcome.body) if outcome.body else None
    except ValueError:
        return Answer(200, outcome.body, [("content-type", outcome.content_type)])
    if not isinstance(result, dict) or "statusCode" not in result:
        body = result.encode() if isinstance(result, str) else outcome.body
        return Answer(200, body, [("content-type", "application/json")])
    return _shaped(result)


def _shaped(result: dict[str, Any]) -> Answer:
    """A result that says its status, fields and body."""
    try:
        status = int(result["statusCode"])
        fields: Fields = []
        for name, value in (result.get("headers") or {}).items():
            fields.append((str(name), _word(value)))
        for name, values in (result.get("multiValueHeaders") or {}).items():
            fields.extend((str(name), _word(value)) for value in values)
        fields.extend(("set-cookie", str(cookie)) for cookie in result.get("cookies") or [])
        body = result.get("body")
        text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
        data = base64.b64decode(text, validate=True) if result.get("isBase64Encoded") else text.encode()
    except (TypeError, ValueError, AttributeError, binascii.Error):
        return Answer(502, b"Internal Server Error", [("content-type", "text/plain")])
    if not 100 <= status <= 599:
        return Answer(502, b"Internal Server Error", [("content-type", "text/plain")])
    kept = [(name, value) for name, value in fields if name.lower() not in OWN and _is_name(name)]
    if not any(name.lower() == "content-type" for name, _ in kept):
        kept.insert(0, ("content-type", "application/json"))
    return Answer(status, data, kept)


def _word(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _is_name(name: str) -> bool:
    return bool(name) and all(letter.isalnum() or letter in "-_.!#$%&'*+^`|~" for letter in name)
