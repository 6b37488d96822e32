"""`docs/openapi.json` from the endpoint table: for clients in other languages, and for the web console.

    python -m argosy.api.openapi docs/openapi.json           write it
    python -m argosy.api.openapi --check docs/openapi.json   exit 1 when it is not what the code says

Needs nothing but msgspec. The file has no version of Argosy in it: it changes when the API does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.api.endpoint import API_VERSION, LOG_MEDIA_TYPE, PREFIX, AnyEndpoint
from argosy.api.endpoints import ENDPOINTS
from argosy.api.jobs import LogFrame
from argosy.model.access import OPEN
from argosy.model.errors import CODES, Problem

# Any: JSON of any shape, written by nobody but this file.
Json = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"
_SCALARS: Final = {str: "string", int: "integer", bool: "boolean"}
#: Replies that are not JSON of a type of the table.
_STREAMS: Final = {
    "logs": {
        LOG_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}},
        "text/plain": {"schema": {"type": "string"}},
    }
}


def build_openapi(endpoints: Sequence[AnyEndpoint] = ENDPOINTS) -> Json:
    """The API as an OpenAPI 3.1 document."""
    named = [
        kind for endpoint in endpoints for kind in (endpoint.request, endpoint.reply) if kind is not None
    ]
    kinds = list(dict.fromkeys([*named, LogFrame, Problem]))
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        method = "get" if endpoint.method == "WS" else endpoint.method.lower()
        paths.setdefault(PREFIX + endpoint.path, {})[method] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Argosy",
            "version": str(API_VERSION),
            "description": "Run any AI workload on any infrastructure. Served over a unix socket (no "
            "token) and, "
            "when asked, over TCP (bearer token). Errors are `Problem`s; unknown fields of requests are "
            "refused, "
            "unknown fields of replies are to be ignored.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": dict(sorted(schemas.items())),
            "responses": {
                "Problem": {
                    "description": "An error. Codes: " + ", ".join(sorted(CODES)) + ".",
                    "content": {"application/json": {"schema": {"$ref": _REF.format(name="Problem")}}},
                }
            },
        },
    }


def _operation(endpoint: AnyEndpoint) -> Json:
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in endpoint.path_names
    ]
    parameters += [
        {"name": name, "in": "query", "description": about, "schema": {"type": _SCALARS[kind]}}
        for name, kind, about in endpoint.query
    ]
    result: Json = {
        "operationId": endpoint.name,
        "summary": endpoint.about,
        "x-permission": endpoint.permission,
    }
    if endpoint.permission == OPEN:
        result["security"] = []
    if parameters:
        result["parameters"] = parameters
    if endpoint.request is not None:
        schema = {"$ref": _REF.format(name=endpoint.request.__name__)}
        result["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif endpoint.pack is not None:
        packed = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        result["requestBody"] = {"required": True, "content": packed}
    if endpoint.method == "WS":
        result["x-websocket"] = True
        result["responses"] = {"101": {"description": "A WebSocket."}}
    else:
        answer: Json = {"description": "Done."}
        if endpoint.reply is not None:
            schema = {"$ref": _REF.format(name=endpoint.reply.__name__)}
            answer["content"] = {"application/json": {"schema": schema}}
        elif endpoint.name in _STREAMS:
            answer["content"] = _STREAMS[endpoint.name]
        result["responses"] = {"200": answer}
    result["responses"]["default"] = {"$ref": "#/components/responses/Problem"}
    return result


def render_openapi() -> bytes:
    """The document as it is kept in the repository."""
    return msgspec.json.format(msgspec.json.encode(build_openapi()), indent=1) + b"\n"


def main(argv: Sequence[str]) -> int:
    check = "--check" in argv
    names = [name for name in argv if name != "--check"]
    if len(names) != 1:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    path, text = Path(names[0]), render_openapi()
    if check:
        if not path.exists() or path.read_bytes() != text:
            print(f"{path} is not what the code says: `python -m argosy.api.openapi {path}`", file=sys.stderr)  # noqa: T201
            return 1
        return 0
    path.write_bytes(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
