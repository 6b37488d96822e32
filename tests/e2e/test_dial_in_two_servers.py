"""A node that dials in through the balancer: one of two real servers has its connection, both reach it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from two_servers import Pair, run, wait

from argosy.testing.hosts import HostLab, why_no_hosts
from argosy.testing.postgres_server import PostgresServer, find_postgres

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.nightly,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made"),
]


@pytest.fixture
def pair(hosts: HostLab, tmp_path: Path) -> Iterator[Pair]:
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("NOT TESTED on PostgreSQL: no server binaries (apt-get install postgresql-15)")
    address, certificate = f"{hosts.subnet}.1", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-days", "2", "-subj", "/CN=argosy", "-addext", f"subjectAltName=IP:{address}"]
    parts = [tmp_path / "key", tmp_path / "chain"]
    files = ["-keyout", str(parts[0]), "-out", str(parts[1])]
    subprocess.run([*made, *files], check=True, capture_output=True)
    certificate.write_text("".join(part.read_text() for part in parts))
    certificate.chmod(0o600)
    postgres = PostgresServer(binaries)
    pair = Pair(postgres, address=address, certificate=str(certificate))
    yield pair
    pair.close()
    postgres.stop()


def test_both_reach_a_node_that_dialled_in_to_one_of_them(pair: Pair, hosts: HostLab) -> None:
    host = hosts.hosts[0]
    words = ("pool", "add", "lab", "--hosts", host.name, "--ssh-config", str(hosts.config_file))
    run(pair.a.env, *words, log=pair.logs)
    run(pair.a.env, "launch", "-y", "-c", "far", "--infra", "ssh/lab", "--", "echo is up", log=pair.logs)
    host.stop_sshd()  # from now on there is no other way to it
    try:
        for server in pair.servers:

            def said(server=server) -> bool:  # type: ignore[no-untyped-def]
                text = f"echo hello from {server.name}"
                return (
                    run(server.env, "ssh", "far", "--", text, ok=False).stdout
                    == f"hello from {server.name}\n"
                )

            wait(f"{server.name} reaches it", said, pair.logs)
        done = run(pair.b.env, "exec", "far", "--", "echo a job goes there, too", log=pair.logs)
        assert "a job goes there, too" in done.stdout
    finally:
        host.start_sshd()
    run(pair.a.env, "down", "-y", "far", log=pair.logs)
