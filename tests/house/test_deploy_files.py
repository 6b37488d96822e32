"""The files in docs/deploy work as far as that can be seen here: systemd reads the unit, settings and options
exist, pods have fields that Kubernetes knows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from argosy.testing.fake_kube_rules import KINDS, check_fields, check_values

REPO = Path(__file__).parents[2]
DEPLOY = REPO / "docs" / "deploy"
SETTINGS = set(re.findall(r"`(ARGOSY_[A-Z0-9_]+)`", (REPO / "docs" / "environment.md").read_text()))
OPTIONS = set(re.findall(r"--[a-z0-9-]+", (REPO / "src" / "argosy" / "cli" / "server.py").read_text()))


def _options_of(text: str) -> set[str]:
    return set(re.findall(r"(?<=\s)--[a-z0-9-]+", " ".join(re.findall(r"argosy server start[^\n]*", text))))


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_settings_and_options_are_there(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"ARGOSY_[A-Z0-9_]+", text)) - {"ARGOSY_LISTEN"} <= SETTINGS
    assert _options_of(text) <= OPTIONS
    assert f"deploy/{path.name}" in (REPO / "docs" / "deploy.md").read_text(), "the page tells of it"


def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NOT TESTED: no systemd-analyze here")
    text = (DEPLOY / "argosy.service").read_text()
    assert "${ARGOSY_LISTEN}" in text and "ARGOSY_LISTEN=" in (DEPLOY / "server.env").read_text()
    unit = tmp_path / "argosy.service"
    unit.write_text(text.replace("/opt/argosy/bin/argosy", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "argosy" in line]
    assert ours == []
    unit.write_text(unit.read_text().replace("KillMode=process", "KillMode=proces"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert "kill mode" in done.stderr, "it does find what is wrong"


def test_the_compose_file_holds_together() -> None:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(found) == {"services", "volumes", "secrets"}
    known = {"image", "restart", "environment", "secrets", "volumes", "healthcheck", "build", "depends_on"}
    known |= {"entrypoint", "command", "ports", "stop_grace_period"}
    for service in found["services"].values():
        assert set(service) <= known
        assert set(service["secrets"]) <= set(found["secrets"])
        assert {each.partition(":")[0] for each in service["volumes"]} <= set(found["volumes"])
        assert set(service.get("depends_on", ())) <= set(found["services"])
    assert (DEPLOY / found["services"]["argosy"]["build"]["context"]).resolve() == REPO
    assert "password" not in str(found["services"]["argosy"]["environment"]).lower(), "no secret in the file"
    assert found["services"]["argosy"]["ports"] == ["7421:7421"]


def test_the_manifest_holds_together() -> None:
    documents: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    by_kind = {each["kind"]: each for each in documents}
    assert set(by_kind) == {"Service", "PodDisruptionBudget", "StatefulSet"}
    spec = by_kind["StatefulSet"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    selectors = [spec["selector"]["matchLabels"], by_kind["Service"]["spec"]["selector"]]
    selectors.append(by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
    assert all(each == labels for each in selectors)
    assert spec["replicas"] == 2 and by_kind["PodDisruptionBudget"]["spec"]["minAvailable"] == 1
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "labels": labels}}
    claims = [each["metadata"]["name"] for each in spec["volumeClaimTemplates"]]
    volumes = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in claims]
    pod["spec"] = {**spec["template"]["spec"], "volumes": volumes}
    kind = next(each for each in KINDS if each.name == "Pod")
    check_fields(pod, kind.fields)
    check_values(kind, pod)
    [server] = pod["spec"]["containers"]
    ports = {each["name"] for each in server["ports"]}
    asked = server["readinessProbe"]["httpGet"]
    assert {by_kind["Service"]["spec"]["ports"][0]["targetPort"], asked["port"], "peers"} == ports
    given = {each["name"]: each.get("value", "") for each in server["env"]}
    peers = next(each["containerPort"] for each in server["ports"] if each["name"] == "peers")
    assert given["ARGOSY_PEER"] == f"$(POD_IP):{peers}" and "POD_IP" in given
    assert asked["path"] == "/v1/health"
    assert [each["name"] for each in server["volumeMounts"]] == claims
    hidden = {each["name"] for each in server["env"] if "secretKeyRef" in each.get("valueFrom", {})}
    assert hidden == {"ARGOSY_STORE", "ARGOSY_KEYS"}, "no secret in the file"
