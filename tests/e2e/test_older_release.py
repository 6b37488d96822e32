"""An older release beside this one over one database: the commit before the newest migration, from this
repository's history, as a process of its own."""

from __future__ import annotations

import http.client
import json
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from two_servers import Pair, Server, run, wait

from argosy.store.schema import HEAD
from argosy.testing.postgres_server import PostgresServer, find_postgres

pytestmark = [pytest.mark.postgres, pytest.mark.nightly, pytest.mark.timeout(900)]
REPO = Path(__file__).resolve().parents[2]
VERSIONS = "src/argosy/store/migrations/versions"


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=REPO, capture_output=True, check=True).stdout


def _older(folder: Path) -> str:
    """Where the sources of the commit before the newest migration lie. Skips where there is no history."""
    try:
        parent = _git("log", "-1", "--diff-filter=A", "--format=%P", "--", f"{VERSIONS}/{HEAD}_*").decode()
        packed = _git("archive", parent.split()[0], "src")
    except (OSError, subprocess.CalledProcessError, IndexError):
        pytest.skip("NOT TESTED beside an older release: this folder has no history of git")
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return str(folder / "src")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """`a` is the older one, alone at first."""
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("NOT TESTED on PostgreSQL: no server binaries (apt-get install postgresql-15)")
    older = _older(tmp_path / "older")
    postgres = PostgresServer(binaries)
    made = Pair(postgres, older=older)
    yield made
    made.close()
    postgres.stop()


def schema_of(pair: Pair) -> str:
    [[found]] = pair.postgres.execute("SELECT version_num FROM alembic_version", pair.database)
    return str(found)


def ask(server: Server, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"authorization": f"Bearer {token}"}
    connection.request(method, f"/v1{path}", None if body is None else json.dumps(body), headers)
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    return reply.status, json.loads(text)


def test_both_answer_until_the_older_one_is_gone(pair: Pair) -> None:
    """People, roles and credentials made at one are known to the other; who is put out is out at both.
    Nothing runs meanwhile: releases before the newest migration do not say on whose machine work is."""
    a, b, password = pair.a, pair.b, "correct horse battery staple"
    assert schema_of(pair) == f"{int(HEAD) - 1:04d}"
    made = {"name": "ann", "password": password}
    assert ask(a, "POST", "/users", made, pair.token)[0] == 200
    b.start()  # the newer one migrates while the older one answers
    assert schema_of(pair) == HEAD
    for turn, (first, second) in enumerate(((a, b), (b, a), (a, b))):
        name = f"ben-{turn}"
        assert ask(first, "POST", "/users", {"name": name, "password": password}, pair.token)[0] == 200
        role = {"user": name, "role": "member", "project": "default"}
        assert ask(second, "POST", "/members", role, pair.token)[0] == 200
        login = {"user": name, "password": password, "client": "cli"}
        status, answer = ask(second, "POST", "/login", login, pair.token)
        assert status == 200, answer
        token = answer["token"]
        for each in (first, second):
            assert ask(each, "GET", "/whoami", token=token)[1]["name"] == name, each.name
        assert ask(first, "POST", f"/users/{name}", {"is_disabled": True}, pair.token)[0] == 200
        for each in (first, second):
            wait("they are out", lambda each=each, t=token: ask(each, "GET", "/whoami", token=t)[0] == 401)
        if not turn and int(HEAD) > 7:  # releases that know 0007 may be started again
            a.stop()
            a.start()
    a.stop()
    a.env = {**b.env, "ARGOSY_HOME": str(a.state), "ARGOSY_PEER": a.env["ARGOSY_PEER"]}  # the newer one
    a.start()
    run(a.env, "launch", "-y", "-c", "box", "--", "echo goes on", log=pair.logs)
    for server in pair.servers:
        with server.client() as client:
            assert {each.name for each in client.status().clusters} == {"box"}, server.name
        log = (server.state / "server.log").read_text()
        assert "Traceback" not in log and " ERROR " not in log, log
