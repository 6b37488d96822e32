"""Hosts through OpenSSH, against real ones in namespaces."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.infra.boot import agent_zipapp
from argosy.infra.bootstrap import AgentPlan, start_agent
from argosy.infra.ssh import Ssh, SshTarget
from argosy.infra.ssh_target import problem
from argosy.infra.system import SystemIds
from argosy.testing.hosts import PASSWORD, USER, Host, HostLab


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="ssh-"))  # short: control sockets live in it
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_zipapp(tmp_path_factory.mktemp("zipapp"))


def target(lab: HostLab, host: Host, **more: object) -> SshTarget:
    known = {"host": host.ip, "user": "root", "key_file": str(lab.key_file), "host_keys": "strict"}
    known |= {"known_hosts": str(lab.known_hosts), "config_file": "/dev/null"}
    return SshTarget(**{**known, **more})  # type: ignore[arg-type]


def test_jump_hosts_of_ones_own_are_logged_in_to_as_ssh_says() -> None:
    to = SshTarget(
        host="10.0.0.7",
        user="ubuntu",
        key_file="/keys/ours",
        config_file="/dev/null",
        known_hosts="/keys/known",
        host_keys="strict",
        jumps=("me@outer", "inner:2222"),
        own_jumps=True,
    )
    inner = to.jump()
    assert inner == SshTarget(host="inner", port=2222, jumps=("me@outer",), own_jumps=True)
    outer = inner.jump()
    assert outer == SshTarget(host="outer", user="me", own_jumps=True)


def with_ssh(folder: Path, body: Callable[[Ssh], Awaitable[None]]) -> None:
    async def run() -> None:
        ssh = Ssh(folder, SystemIds())
        try:
            await body(ssh)
        finally:
            await ssh.close()

    asyncio.run(run())


def test_a_command_has_its_own_words_and_status(hosts: HostLab, folder: Path) -> None:
    host = hosts.hosts[0]
    host.path("/root/.bashrc").write_text("echo Welcome to the lab; echo Beware >&2\n")

    async def body(ssh: Ssh) -> None:
        to = target(hosts, host)
        ran = await ssh.run(to, "cat; echo 'it''s' broken >&2; exit 255", data=b"hello\n" * 50_000)
        assert (ran.status, ran.out, ran.err) == (255, b"hello\n" * 50_000, "its broken\n")
        many = await asyncio.gather(*[ssh.run(to, f"echo {n}; hostname") for n in range(20)])
        assert [one.out.split() for one in many] == [[b"%d" % n, host.name.encode()] for n in range(20)]
        assert len(host.processes("sshd: root@notty")) <= 2, "one log-in serves all"
        with pytest.raises(border.Unreachable, match=r"`sleep 60` did not end on root@.* within 0 s"):
            await ssh.run(to, "sleep 60", timeout_s=0.3)

    try:
        with_ssh(folder, body)
    finally:
        host.path("/root/.bashrc").unlink()


def test_peoples_own_configuration_and_jump_hosts_are_used(hosts: HostLab, folder: Path) -> None:
    first, second, third = hosts.hosts

    async def body(ssh: Ssh) -> None:
        named = SshTarget(host=second.name, config_file=str(hosts.config_file))
        assert (await ssh.run(named, "hostname")).out == second.name.encode() + b"\n"
        behind = [target(hosts, host, jumps=(f"root@{first.ip}",)) for host in (second, third)]
        for ran in await asyncio.gather(*[ssh.run(to, "echo $SSH_CLIENT") for to in behind]):
            assert ran.out.split()[0] == first.ip.encode()
        assert len(first.processes("sshd: root@")) <= 2, "both share one log-in at the jump host"

    with_ssh(folder, body)


def test_a_fresh_host_runs_a_rank_and_a_second_start_finds_it(
    hosts: HostLab, folder: Path, zipapp: Path
) -> None:
    host = hosts.hosts[0]

    async def body(ssh: Ssh) -> None:
        to = target(hosts, host, user=USER)
        plan = AgentPlan(name="n-1", environ={"ARGOSY_NODE_LABELS": "rack=7"})
        place = await start_agent(ssh, to, zipapp, plan)
        assert place.started and place.facts.labels == (("rack", "7"),) and place.facts.ip == host.ip
        assert place.root == f"/home/{USER}/.argosy/nodes/n-1"
        again = await start_agent(ssh, to, zipapp, plan)
        assert (again.root, again.socket, again.started) == (place.root, place.socket, False)
        inside = host.path(place.socket)
        assert inside.parent.stat().st_mode & 0o777 == 0o700 and inside.stat().st_mode & 0o777 == 0o600
        assert host.run("ss -Hltn | grep -v ':22 ' || true") == "", "nothing else listens on the network"
        client = AgentClient(lambda: ssh.open(to, place.socket))
        await client.prepare([RankOrder(id="a-1.0", run="hostname", run_now=True)])
        said = b""
        async for report in client.watch({}):
            said += b"".join(chunk.data for chunk in report.logs)
            if any(rank.exit_code is not None for rank in report.ranks):
                break
        assert said == host.name.encode() + b"\n"
        with pytest.raises(border.Unreachable, match="no agent answers at /tmp/none of ann@"):
            await ssh.open(to, "/tmp/none")
        await client.shutdown()
        await client.close()

    with_ssh(folder, body)


def test_an_agent_that_was_not_there_is_found_when_it_is(hosts: HostLab, folder: Path, zipapp: Path) -> None:
    """It is asked for again and again while its host starts it anew."""

    async def body(ssh: Ssh) -> None:
        to = target(hosts, hosts.hosts[0], user=USER)
        plan = AgentPlan(name="n-late", socket=f"/tmp/late-{SystemIds().new('n')}/s")
        for _ in range(2):
            with pytest.raises(border.Unreachable, match="no agent answers at"):
                await ssh.open(to, plan.socket)
        await start_agent(ssh, to, zipapp, plan)
        client = AgentClient(lambda: ssh.open(to, plan.socket))
        assert (await client.node()).hostname == "n-late"
        await client.shutdown()
        await client.close()

    with_ssh(folder, body)


@pytest.mark.parametrize("where", ["sshd", "key"])
def test_where_forwards_are_forbidden_one_command_carries_all_streams(
    where: str, hosts: HostLab, folder: Path, zipapp: Path
) -> None:
    host = hosts.hosts[1]
    keys = host.path("/root/.ssh/authorized_keys")
    plain = keys.read_text()
    if where == "key":
        keys.write_text(f"restrict {plain}")
    else:
        host.stop_sshd()
        host.start_sshd(["AllowStreamLocalForwarding no"])

    async def body(ssh: Ssh) -> None:
        to = target(hosts, host)
        place = await start_agent(ssh, to, zipapp, AgentPlan(name=f"n-{where}"))
        client = AgentClient(lambda: ssh.open(to, place.socket))
        for facts in await asyncio.gather(*[client.node() for _ in range(30)]):
            assert facts.ip == host.ip
        assert len(host.processes("connect --mux")) <= 2, "its shell is one, and the command"
        await client.shutdown()
        await client.close()

    try:
        with_ssh(folder, body)
    finally:
        host.path("/root/.ssh/authorized_keys").write_text(plain)
        host.stop_sshd()
        host.start_sshd([])


def test_hosts_that_only_ran_commands_do_not_keep_a_process_each(
    hosts: HostLab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("argosy.infra.ssh._RESTING_MAX", 2)

    async def body(ssh: Ssh) -> None:
        for host in hosts.hosts:
            assert (await ssh.run(target(hosts, host), "hostname")).out.decode().strip() == host.name
        masters = {path.name for path in folder.iterdir()}
        assert masters == {target(hosts, host).key for host in hosts.hosts[1:]}
        assert (await ssh.run(target(hosts, hosts.hosts[0]), "echo again")).out == b"again\n"

    with_ssh(folder, body)


def test_log_ins_that_fail_are_shared_and_come_at_longer_and_longer_intervals(folder: Path) -> None:
    """Nobody listens at the port: each try is refused at once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening

        async def body(ssh: Ssh) -> None:
            to = SshTarget(host="127.0.0.1", port=taken.getsockname()[1], config_file="/dev/null")
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            for _ in range(4):
                answers = await asyncio.gather(*[ssh.run(to, "x") for _ in range(9)], return_exceptions=True)
                assert all(isinstance(each, border.Unreachable) for each in answers)
            assert loop.time() - began_s >= 0.1 + 0.2 + 0.4

        with_ssh(folder, body)


def test_a_host_that_comes_back_is_logged_in_to_again(hosts: HostLab, folder: Path, zipapp: Path) -> None:
    host = hosts.hosts[0]

    async def body(ssh: Ssh) -> None:
        to = target(hosts, host)
        place = await start_agent(ssh, to, zipapp, AgentPlan(name="n-3"))
        host.kill()
        said = ""
        async with asyncio.timeout(90):
            while "refuses connections at port 22: is sshd running" not in said:
                with pytest.raises(border.Unreachable) as caught:  # at first the old connection may break off
                    await ssh.run(to, "true")
                said = str(caught.value)
        with pytest.raises(border.Unreachable):
            await ssh.open(to, place.socket)
        host.boot()
        again = await start_agent(ssh, to, zipapp, AgentPlan(name="n-3"))
        assert again.started and again.root == place.root
        client = AgentClient(lambda: ssh.open(to, again.socket))
        assert (await client.node()).ip == host.ip
        await client.shutdown()
        await client.close()

    with_ssh(folder, body)


# ---- what is wrong is said


def test_passwords_come_from_memory_and_wrong_ones_are_said(hosts: HostLab, folder: Path) -> None:
    async def body(ssh: Ssh) -> None:
        to = target(hosts, hosts.hosts[2], user=USER, key_file="")
        refused = (
            r"refuses every key that ssh offers, and the password, for user `ann` .*: name the right user"
        )
        with ssh.with_password(to, "sesame"), pytest.raises(border.CredentialsRejected, match=refused):
            await ssh.run(to, "id -un")
        with ssh.with_password(to, PASSWORD):
            assert (await ssh.run(to, "id -un")).out == b"ann\n"
        for file in folder.rglob("*"):
            assert not file.is_file() or PASSWORD not in file.read_text()

    with_ssh(folder, body)


def test_host_keys_are_checked(hosts: HostLab, folder: Path) -> None:
    host, own = hosts.hosts[2], folder / "known"

    async def body(ssh: Ssh) -> None:
        unknown = target(hosts, host, known_hosts=str(own), host_keys="ask-config")
        with pytest.raises(border.RequestRefused, match=r"is not known: run `ssh root@.*` once and compare"):
            await ssh.run(unknown, "true")
        await ssh.run(target(hosts, host, known_hosts=str(own), host_keys="accept-new", alias="c-1"), "true")
        assert own.read_text().startswith("c-1 ssh-ed25519 ")
        await ssh.close()
        host.new_host_key()
        with pytest.raises(border.RequestRefused) as caught:
            await ssh.run(
                target(hosts, host, known_hosts=str(own), host_keys="accept-new", alias="c-1"), "true"
            )
        assert f"has changed (line 1 of {own} has another one)" in str(caught.value)
        assert f"`ssh-keygen -R 'c-1' -f '{own}'`" in str(caught.value)

    try:
        with_ssh(folder, body)
    finally:
        hosts._write_lists()


def test_a_home_becomes_read_only_while_programs_open_files_there(hosts: HostLab) -> None:
    host = hosts.hosts[1]
    holds = "for i in $(seq 100); do (exec 3>/root/held.$j; sleep 0.02); done"
    host.run(f"for j in $(seq 8); do ({holds}) > /dev/null 2>&1 & done")
    try:
        for _ in range(8):
            host.mount_home("ro")
            assert "Read-only" in host.run("touch /root/new 2>&1 || true")
            host.mount_home("rw")
    finally:
        host.mount_home("rw")


def test_hosts_that_cannot_run_an_agent_say_why(hosts: HostLab, folder: Path, zipapp: Path) -> None:
    host = hosts.hosts[1]
    python = "install Python 3.8 or newer there, or name the program to use"

    async def body(ssh: Ssh) -> None:
        to = target(hosts, host)

        async def refused(text: str) -> None:
            with pytest.raises(border.RequestRefused) as caught:
                await start_agent(ssh, to, zipapp, AgentPlan(name="n-4"))
            assert str(caught.value).replace(to.label, "HOST").startswith(text)

        try:
            host.python("missing")
            await refused(f"HOST has no `python3`: {python}")
            host.python("old")
            await refused("`python3` on HOST is 3.6.8, and 3.8 or newer is needed: install one beside it")
            host.python("present")
            host.run("rm -rf /root/.argosy")
            host.fill_disk()
            await refused(
                "the disk of /root/.argosy/agent on HOST is full (No space left on device): make room"
            )
            host.free_disk()
            host.mount_home("ro")
            await refused(
                "/root/.argosy/agent on HOST is read-only: mount it with `rw`, or name another folder"
            )
            host.mount_home("noexec")
            await refused("/root/.argosy/nodes/n-4 on HOST is mounted noexec, so that nothing can be started")
        finally:
            host.python("present")
            host.free_disk()
            host.mount_home("rw")

    with_ssh(folder, body)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (
            "ssh: Could not resolve hostname gpu9: Name or service not known",
            "`gpu9` does not resolve: correct",
        ),
        ("ssh: connect to host gpu1 port 22: Connection refused", "refuses connections at port 22: is sshd"),
        ("ssh: connect to host gpu1 port 22: Connection timed out", "does not answer at port 22 within 10 s"),
        ("ssh: connect to host gpu1 port 22: No route to host", "no way from this machine to me@gpu1: check"),
        ("Permissions 0644 for '/k' are too open.\nUNPROTECTED PRIVATE KEY FILE", "run `chmod 600 /k`"),
        ("/etc/x: line 3: Bad configuration option: hots", "cannot read its configuration: /etc/x: line 3"),
        (
            "kex_exchange_identification: read: Connection reset by peer",
            "too few log-ins at once (MaxStartups)",
        ),
        ("mux_client_request_session: session request failed: Session open refused", "raise MaxSessions"),
        ("something new", "cannot log in to me@gpu1: something new"),
    ],
)
def test_each_complaint_of_ssh_has_its_fix(said: str, text: str) -> None:
    assert text in str(problem(SshTarget(host="gpu1", user="me"), said))
