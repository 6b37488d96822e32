"""docs/deploy/compose.yaml and kubernetes.yaml with real containers: the image is built from its Dockerfile,
the servers run over PostgreSQL, are asked, killed, and come back.

In place of Docker is podman, and in place of a cluster's controller of StatefulSets this test, which makes
the pods that one would make."""

from __future__ import annotations

import base64
import functools
import json
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_podman import REPO, Engine, engine, make_images

DEPLOY = REPO / "docs" / "deploy"
PATIENCE_S = 240.0
COMPOSE = shutil.which("podman-compose", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin") or ""
SUBNET = "10.91.7"

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(tmp_path_factory.mktemp("containers")) as made:
        tried = made.podman("network", "create", "trial", ok=False)
        if tried.returncode:
            pytest.skip(
                f"NO NETWORKS OF CONTAINERS: apt-get install netavark aardvark-dns iptables: {tried.stderr}"
            )
        make_images(made)
        yield made


def wait(what: str, is_so: Callable[[], object], told: Callable[[], str]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until, f"not within {PATIENCE_S} s: {what}\n{told()}"
        time.sleep(0.5)


def health(podman: Engine, address: str, *options: str) -> dict[str, Any]:
    """What a server answers; {} while it does not."""
    done = podman.run("curl", "--silent", "--max-time", "20", *options, f"{address}/v1/health", ok=False)
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 and done.stdout[:1] == "{" else {}
    return found


def test_the_image_is_what_the_server_needs_and_no_more(podman: Engine) -> None:
    def said(text: str) -> str:
        run = ("run", "--rm", "--network=none", "--entrypoint=sh", "localhost/argosy", "-c", text)
        return podman.podman(*run).stdout.strip()

    assert said("id -u; stat -c '%u %a' $ARGOSY_HOME") == "10001\n10001 700"
    assert said("ssh -V 2>&1 | cut -c1-7; git --version | cut -c1-3").split() == ["OpenSSH", "git"]
    assert said("ls -A /src 2>/dev/null; ls -A $ARGOSY_HOME") == "", "no sources, no state"
    made = json.loads(podman.podman("image", "inspect", "localhost/argosy").stdout)[0]
    assert made["User"] == "10001" and "7421/tcp" in made["Config"]["ExposedPorts"]


class Composed:
    """docs/deploy/compose.yaml, with the two files that its comments make."""

    def __init__(self, podman: Engine, folder: Path) -> None:
        self._podman, self.folder = podman, folder
        folder.mkdir(parents=True)
        shutil.copy(DEPLOY / "compose.yaml", folder)
        self.password = secrets.token_hex(24)
        self.key = base64.b64encode(secrets.token_bytes(32)).decode()
        for name, text in (("postgres-password", self.password), ("secrets.key", self.key)):
            (folder / name).write_text(f"{text}\n")
            (folder / name).chmod(0o400)
            shutil.chown(folder / name, 10001, 10001)

    def run(self, *words: str, ok: bool = True) -> str:
        done = self._podman.run(COMPOSE, *words, cwd=self.folder, ok=ok)
        return done.stdout + done.stderr

    def name(self, service: str) -> str:
        """Of its container."""
        label = f"label=com.docker.compose.service={service}"
        return self._podman.podman("ps", "--filter", label, "--format", "{{.Names}}").stdout.strip()

    def health(self) -> dict[str, Any]:
        return health(self._podman, "https://localhost:7421", "--insecure")

    def logs(self) -> str:
        return self.run("logs", ok=False)


def test_the_compose_file_runs(podman: Engine, tmp_path: Path) -> None:
    if not COMPOSE:
        pytest.skip("THE COMPOSE FILE IS NOT RUN: pip install podman-compose")
    here = Composed(podman, tmp_path / "docs" / "deploy")
    try:
        here.run("up", "--detach", "--no-build")
        wait("the server answers", here.health, here.logs)
        assert "has an account" in here.run(
            "exec", "-T", "argosy", "argosy", "user", "add", "ann", "--role", "owner"
        )
        # Whoever has the authority's file trusts the published port.
        ca = podman.podman("exec", here.name("argosy"), "cat", "/home/argosy/state/tls/ca.pem").stdout
        (tmp_path / "ca.pem").write_text(ca)
        assert health(podman, "https://localhost:7421", "--cacert", str(tmp_path / "ca.pem"))
        for service in ("postgres", "argosy"):  # podman asks by timers of systemd, where there is one
            podman.podman("healthcheck", "run", here.name(service))
        shown = podman.podman("inspect", here.name("argosy"), here.name("postgres")).stdout
        shown += podman.podman("top", here.name("argosy"), "args").stdout + here.logs()
        assert here.password not in shown and here.key not in shown
        tables = podman.podman(
            "exec", here.name("postgres"), "psql", "-U", "argosy", "-tAc",
            "select count(*) from pg_stat_activity where client_addr is not null", "argosy",
        ).stdout  # fmt: skip
        assert int(tables) > 0, "its state is in the database"
        before = (
            here.health()["pid"],
            podman.podman("inspect", here.name("argosy"), "--format={{.State.Pid}}").stdout,
        )
        podman.run("kill", "-9", before[1].strip())
        wait("it is started again", lambda: here.name("argosy") and here.health(), here.logs)
        after = podman.podman("inspect", here.name("argosy"), "--format={{.State.Pid}}").stdout
        assert after != before[1]
        here.run("down")
        assert here.health() == {}
        here.run("up", "--detach", "--no-build")
        wait("the server answers", here.health, here.logs)
        assert "ann" in here.run("exec", "-T", "argosy", "argosy", "user", "ls"), "the volumes are kept"
    finally:
        here.run("down", "--volumes", ok=False)


def pods_of(text: str) -> list[dict[str, Any]]:
    """What a cluster makes of the manifest, in the order in which podman has to see it."""
    made: list[dict[str, Any]] = []
    [owner] = [each for each in yaml.safe_load_all(text) if each["kind"] == "StatefulSet"]
    spec = owner["spec"]
    for index in range(spec["replicas"]):
        name = f"{owner['metadata']['name']}-{index}"
        pod: dict[str, Any] = json.loads(json.dumps(spec["template"]))
        pod |= {"apiVersion": "v1", "kind": "Pod"}
        pod["metadata"]["name"] = pod["spec"]["hostname"] = name
        pod["spec"]["volumes"] = []
        for claim in spec["volumeClaimTemplates"]:
            kept = f"{claim['metadata']['name']}-{name}"
            made.append(
                {**claim, "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": kept}}
            )
            made[-1]["metadata"]["annotations"] = {  # as fsGroup has it
                "volume.podman.io/uid": str(pod["spec"]["securityContext"]["fsGroup"]),
                "volume.podman.io/gid": str(pod["spec"]["securityContext"]["fsGroup"]),
            }
            volume = {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": kept}}
            pod["spec"]["volumes"].append(volume)
        made.append(pod)
    return made


def fill_in(env: list[dict[str, Any]], address: str) -> None:
    """As the kubelet does, and this podman does not: the address of the pod, and variables in values."""
    for each in env:
        if each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") == "status.podIP":
            each["value"] = address
            del each["valueFrom"]
    known = {each["name"]: each["value"] for each in env if "value" in each}
    for each in env:
        for name, value in known.items():
            each |= {"value": each["value"].replace(f"$({name})", value)} if "value" in each else {}


def test_the_pods_of_the_manifest_run(podman: Engine, tmp_path: Path) -> None:
    password, key = secrets.token_hex(16), base64.b64encode(secrets.token_bytes(32)).decode()
    (tmp_path / "password").write_text(password)
    podman.podman("network", "create", f"--subnet={SUBNET}.0/24", "cluster")
    podman.podman(
        "run", "--detach", "--name=db", "--network=cluster", "--env=POSTGRES_USER=argosy",
        "--env=POSTGRES_DB=argosy", "--env=POSTGRES_PASSWORD_FILE=/password",
        f"--volume={tmp_path}/password:/password:ro", "postgres:16",
    )  # fmt: skip
    text = (DEPLOY / "kubernetes.yaml").read_text()
    store = f"postgresql+psycopg://argosy:{password}@db/argosy"
    kept = {
        name: base64.b64encode(value.encode()).decode() for name, value in (("store", store), ("keys", key))
    }
    (tmp_path / "secret").write_text(json.dumps(kept))
    podman.podman("secret", "create", "argosy", str(tmp_path / "secret"))
    documents = pods_of(text)
    pods = {f"argosy-{index}": f"{SUBNET}.{index + 10}" for index in range(2)}
    for at, document in enumerate(documents):
        file, name = tmp_path / f"{at}.yaml", document["metadata"]["name"]
        for container in document.get("spec", {}).get("containers", ()):
            fill_in(container["env"], pods[name])
            del container["ports"]  # podman opens them on this machine, both at the same number
        file.write_text(yaml.safe_dump(document))
        where = ["--network=cluster", f"--ip={pods[name]}"] if name in pods else []
        podman.podman("kube", "play", *where, str(file))

    def logs() -> str:
        return "".join(podman.podman("logs", f"{pod}-server", ok=False).stderr for pod in pods)

    def peers() -> str:
        return podman.podman("exec", "argosy-0-server", "argosy", "server", "peers", ok=False).stdout

    for address in pods.values():
        wait("it answers", functools.partial(health, podman, f"http://{address}:7421"), logs)
    wait("both know each other", lambda: all(f"{each}:7422" in peers() for each in pods.values()), peers)
