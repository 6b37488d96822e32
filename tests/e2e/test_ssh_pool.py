"""Own GPU servers from end to end: the installed command line, a server, and hosts that ssh reaches."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from e2e_house import House

from argosy.testing.hosts import Host, HostLab

#: Of a cloud: in the server's environment, and nobody else's business. Drawn, so that no file of this test's
#: own source is found for them.
_KEY, _SECRET = f"K3y-{uuid.uuid4().hex}", f"s3cr3t-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def pool(hosts: HostLab) -> Iterator[House]:
    """A house whose pool `lab` has the hosts of the lab."""
    house = House()
    house.env["HOME"] = str(house.root)
    house.env["AWS_SECRET_ACCESS_KEY"] = _KEY
    names = ",".join(host.name for host in hosts.hosts)
    house.run("pool", "add", "lab", "--hosts", names, "--ssh-config", str(hosts.config_file))
    yield house
    house.close()


def test_times_of_a_host_whose_clock_is_an_hour_off_are_told_by_the_servers(
    pool: House, hosts: HostLab
) -> None:
    host = hosts.hosts[1]
    host.skew(3600)
    try:
        began_ms = int(time.time() * 1000)
        words = ("-n", "late", "--infra", f"ssh/lab/{host.name}", "--max-duration", "20m")
        done = pool.run("jobs", "launch", "-y", *words, "--", "echo here it is $(date +%s)")
        ended_ms = int(time.time() * 1000)
    finally:
        host.skew(0)
    shown_s = int(next(line for line in done.stdout.splitlines() if "here it is" in line).split()[-1])
    assert shown_s * 1000 > ended_ms + 3_000_000, "that host is an hour ahead"
    [job] = [job for job in pool.jobs() if job["name"] == "late"]
    assert job["status"] == "succeeded"
    assert began_ms <= job["started_ms"] <= job["ended_ms"] <= ended_ms + 1000


def _programs_with(host: Host, text: str, where: str) -> list[str]:
    """Command lines of the programs that have a text in `environ` or `cmdline`; but of those that look."""
    look = (
        f"cd /proc; for each in [0-9]*; do grep -qa {text} $each/{where} 2>/dev/null "
        "&& tr '\\0\\n' '  ' <$each/cmdline && echo; done; true"
    )
    return [line.strip() for line in host.run(look).splitlines() if "grep -qa" not in line]


def _files_with(host: Host, text: str, since: str) -> list[str]:
    """Of those that were written after the file `since`."""
    places = "/root /home /tmp /run /var/tmp"
    return host.run(f"find {places} -type f -newer {since} -exec grep -lsaF {text} {{}} + ; true").split()


def test_nodes_have_no_keys_listen_nowhere_and_obey_their_owner(pool: House, hosts: HostLab) -> None:
    host = hosts.hosts[0]
    before, began = host.run("ss -Hltun"), host.run("mktemp").strip()
    task = pool.root / "quiet.yaml"
    task.write_text(f"secrets: {{TOKEN: {_SECRET}}}\nrun: exec sleep 1357\n")
    words = ("--infra", f"ssh/lab/{host.name}")
    pool.run("jobs", "launch", "-y", "-d", "-n", "quiet", *words, str(task))
    pool.run("jobs", "launch", "-y", "-d", "-n", "other", *words, "--", "exec sleep 2468")
    numbers = {job["name"]: job["number"] for job in pool.jobs() if job["name"] in ("quiet", "other")}
    for number in numbers.values():
        pool.wait_job(None, number, "running")
    try:
        pool.wait("it has what it asks for", lambda: "sleep 1357" in _programs_with(host, _SECRET, "environ"))
        holders = _programs_with(host, _SECRET, "environ")
        assert not [each for each in holders if each != "sleep 1357" and "argosy-rank" not in each]
        assert not _programs_with(host, _KEY, "environ")
        for text in (_KEY, _SECRET):
            assert not _programs_with(host, text, "cmdline")
            assert not _files_with(host, text, began)
        assert host.run("ss -Hltun") == before
        sockets = host.run("find /tmp /run -type s -path '*argosy*' ! -path '*/labs/*'").split()
        assert sockets
        for path in sockets:
            ask = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
            with pytest.raises(OSError, match="Permission denied"):
                host.run(f'python3 -c "{ask}"', user=hosts.user)
    finally:
        for number in numbers.values():
            pool.run("jobs", "cancel", "-y", str(number))
    pool.wait(
        "everything is given back",
        lambda: not any(each["claims"] for each in pool.json("pool", "hosts")["hosts"]),
    )


def test_a_host_that_is_switched_off_closes_and_comes_back(pool: House, hosts: HostLab) -> None:
    first, second, _ = hosts.hosts

    def states() -> dict[str, str]:
        return {each["name"]: each["state"] for each in pool.json("pool", "hosts")["hosts"]}

    pool.run("launch", "-y", "-d", "-c", "dev", "--infra", f"ssh/lab/{first.name}", "--", "sleep 1000")
    pool.wait_job("dev", 1, "running")
    first.kill()
    try:
        pool.wait("it is seen that the host is gone", lambda: states()[first.name] == "closed")
        assert states()[second.name] == "open"
        told = {each["name"]: each["why"] for each in pool.json("pool", "hosts")["hosts"]}
        assert told[first.name].startswith(f"{first.name} refuses connections at port 22: is sshd running")
        done = pool.run("launch", "-y", "-c", "other", "--infra", "ssh/lab", "--", "hostname")
        assert first.name not in done.stdout
    finally:
        first.boot()
    pool.wait("the node is back", lambda: pool.cluster("dev")["status"] == "running")  # type: ignore[index]
    assert states()[first.name] == "open"
    assert first.name in pool.run("exec", "dev", "--", "hostname").stdout
    pool.run("down", "-y", "dev", "other")
    pool.wait("both have gone", lambda: not pool.clusters())


def test_a_pool_is_made_and_runs_what_a_cloud_would_run(pool: House, hosts: HostLab) -> None:
    first, second, third = (host.name for host in hosts.hosts)
    told = pool.json("pool", "hosts")["hosts"]
    assert [(each["pool"], each["name"], each["state"]) for each in told] == [
        ("lab", name, "open") for name in (first, second, third)
    ]
    assert "Nobody offers accelerators on ssh/lab." in pool.run("gpus", "--infra", "ssh/lab").stdout

    task = "echo node $ARGOSY_NODE_RANK on $(hostname) of $ARGOSY_NODE_IPS; touch kept-$ARGOSY_NODE_RANK"
    done = pool.run("launch", "-y", "-c", "dev", "--infra", "ssh/lab", "--num-nodes", "2", "--", task)
    ips = f"{hosts.hosts[0].ip} {hosts.hosts[1].ip}"
    assert f"(job-1, rank=0) node 0 on {first} of {ips}" in done.stdout
    assert f"(job-1, rank=1) node 1 on {second} of {ips}" in done.stdout
    refused = pool.run("pool", "remove", first, "-y", ok=False)
    assert refused.returncode == 5
    assert f"error: `lab/{first}` is in use: 1 claim holds something there" in refused.stderr
    assert (
        f"on {third}"
        in pool.run("jobs", "launch", "-y", "--infra", f"ssh/lab/{third}", "--", "echo on $(hostname)").stdout
    )

    job = pool.run("jobs", "launch", "-y", "-d", "--infra", f"ssh/lab/{third}", "--", "sleep 100")
    assert job.returncode == 0
    number = max(each["number"] for each in pool.jobs())
    pool.wait_job(None, number, "running")
    pool.run("pool", "drain", third)
    pool.wait("the job left", lambda: pool.job(None, number)["status"] != "running")
    said = f"lab/{third} is drained"
    pool.wait("it says why", lambda: said in pool.run("explain", str(number), ok=False).stdout)
    pool.run("jobs", "cancel", "-y", str(number))

    pool.run("pool", "cordon", second)
    pool.run("stop", "-y", "dev")
    pool.wait("the cluster rests", lambda: pool.cluster("dev")["status"] == "stopped")  # type: ignore[index]
    pool.run("start", "-y", "dev")
    waits = pool.run("explain", "dev", ok=False).stdout
    assert pool.cluster("dev")["status"] != "running", waits  # type: ignore[index]
    pool.run("pool", "uncordon", second)
    done = pool.run("exec", "dev", "--num-nodes", "2", "--", "ls kept-$ARGOSY_NODE_RANK")
    assert sorted(line.split()[-1] for line in done.stdout.splitlines()) == ["kept-0", "kept-1"]

    pool.run("down", "-y", "dev")
    pool.wait(
        "everything is given back",
        lambda: not any(each["claims"] for each in pool.json("pool", "hosts")["hosts"]),
    )
    for host in hosts.hosts:
        assert not list(host.path("/root/.argosy/nodes").glob("*/clm-*"))
    assert pool.run("pool", "remove", "lab", "-y").stdout.count("is in no pool any more") == 3
