from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from argosy.api.endpoint import PREFIX
from argosy.api.endpoints import ENDPOINTS
from argosy.api.openapi import build_openapi, main, render_openapi
from argosy.model.access import OPEN, PERMISSIONS, SIGNED_IN

GOLDEN = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


def test_the_file_is_what_the_code_says(tmp_path: Path) -> None:
    assert GOLDEN.read_bytes() == render_openapi(), "run `python -m argosy.api.openapi docs/openapi.json`"
    assert main(["--check", str(GOLDEN)]) == 0
    other = tmp_path / "openapi.json"
    assert main(["--check", str(other)]) == 1
    assert main([str(other)]) == 0
    assert other.read_bytes() == GOLDEN.read_bytes()
    assert main([]) == 2


def test_every_row_is_an_operation() -> None:
    paths = build_openapi()["paths"]
    found = {operation["operationId"] for path in paths.values() for operation in path.values()}
    assert found == {endpoint.name for endpoint in ENDPOINTS}
    for endpoint in ENDPOINTS:
        operation = paths[PREFIX + endpoint.path][
            "get" if endpoint.method == "WS" else endpoint.method.lower()
        ]
        names = [parameter["name"] for parameter in operation.get("parameters", ())]
        assert names == re.findall(r"{(\w+)}", endpoint.path) + [name for name, _, _ in endpoint.query]


def _refs(node: Any) -> list[str]:
    if isinstance(node, dict):
        here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return here + [ref for value in node.values() for ref in _refs(value)]
    return [ref for value in node for ref in _refs(value)] if isinstance(node, list) else []


def test_every_reference_leads_somewhere() -> None:
    document = build_openapi()
    for ref in set(_refs(document)):
        node: Any = document
        for part in ref.removeprefix("#/").split("/"):
            node = node[part]


def test_requests_refuse_unknown_fields() -> None:
    schemas = build_openapi()["components"]["schemas"]
    assert schemas["LaunchRequest"]["additionalProperties"] is False
    assert "additionalProperties" not in schemas["LaunchReply"]


def test_every_endpoint_names_a_permission() -> None:
    """Or says that it is open to everybody, or to whoever is signed in. `model.access` has the list."""
    known = {*PERMISSIONS, OPEN, SIGNED_IN}
    assert [each.name for each in ENDPOINTS if each.permission not in known] == []
