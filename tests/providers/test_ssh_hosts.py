"""Hosts that people name, on real ones in namespaces: what is said of each that does not work, passwords,
host keys, two servers that own one host, and hosts that are lost while something is given back."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from argosy.infra import border
from argosy.infra.provider import Setting, Want
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.enlisting import HostOrder, HostReport
from argosy.model.errors import ArgosyError
from argosy.model.offer import DeviceShare, Placement
from argosy.model.rows import Claim
from argosy.providers.ssh.provider import SshProvider
from argosy.testing.builders import a_choice, a_claim, an_offer
from argosy.testing.hosts import PASSWORD, USER, Host, HostLab, make_key

T = TypeVar("T")
OWN_FOLDER = "or name another folder: `folder:` of the pool, `--folder` of `argosy pool add`"


class Server:
    """The provider of one server, with a folder of its own."""

    def __init__(self, runner: asyncio.Runner, lab: HostLab, name: str) -> None:
        self._runner, self.lab = runner, lab
        self.home = Path(tempfile.mkdtemp(prefix="srv-"))
        environ = {**os.environ, "HOME": str(self.home)}
        self.root = self.home / "providers" / "ssh"
        setting = Setting(
            root=self.root, clock=SystemClock(), ids=SystemIds(), environ=environ, home=self.home
        )
        self.provider = SshProvider(setting)
        self.name = name

    def run(self, call: Awaitable[T]) -> T:
        async def body() -> T:
            return await call

        return self._runner.run(body())

    def order(self, host: Host, **more: object) -> HostOrder:
        order = HostOrder(pool="lab", host=host.name, config_file=str(self.lab.config_file))
        return msgspec.structs.replace(order, **more)

    def examine(self, host: Host, **more: object) -> HostReport:
        """Anew: what was logged in before is forgotten."""
        self.run(self.provider.driver().ssh.close())
        return self.run(self.provider.examine(self.order(host, **more)))

    def add(self, *hosts: Host) -> None:
        orders = [self.order(host) for host in hosts]
        for order in orders:
            report = self.run(self.provider.examine(order))
            assert report.ok, report
        self.run(self.provider.enlist(orders))

    def claim(self, *hosts: Host, milli: int = 1000) -> Claim:
        shares = (DeviceShare(index=0, milli=milli),)
        places = tuple(
            Placement(rank=rank, node_id=f"ssh/lab#{host.name}", devices=shares)
            for rank, host in enumerate(hosts)
        )
        choice = a_choice(offer=an_offer(provider="ssh", region="lab", apart=True), accelerators_milli=milli)
        return a_claim(count=len(hosts), choice=choice, placements=places, tag=f"sto-{self.name}")

    def closed(self) -> dict[str, str]:
        self.run(self.provider.driver().look_at_all())
        offers = self.run(self.provider.quote(Want()))
        return {machine.name: machine.closed for machine in offers[0].machines}

    def end(self) -> None:
        self.run(self.provider.driver().ssh.close())
        shutil.rmtree(self.home)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture
def server(runner: asyncio.Runner, hosts: HostLab) -> Iterator[Server]:
    made = Server(runner, hosts, "ours")
    yield made
    made.end()


@pytest.fixture
def host(hosts: HostLab) -> Host:
    return hosts.hosts[2]


def told(report: HostReport) -> str:
    assert not report.ok
    return f"{report.text}: {report.hint}"


def test_a_name_that_does_not_resolve(server: Server) -> None:
    report = server.run(server.provider.examine(HostOrder(pool="lab", host="me@no-such-host.invalid")))
    assert told(report) == (
        "the host name `no-such-host.invalid` does not resolve: correct it, or add it to ~/.ssh/config or to "
        "the DNS"
    )


def test_a_host_key_that_has_changed_and_one_that_nobody_knows(server: Server, host: Host) -> None:
    plain = HostOrder(
        pool="lab", host=f"root@{host.ip}", key_file=str(server.lab.key_file), config_file="/dev/null"
    )
    report = server.run(server.provider.examine(plain))
    assert report.asks == "host-key"
    assert report.fingerprint.startswith("ED25519 SHA256:")
    assert told(report) == (
        f"shows a host key that is not known: {report.fingerprint}: compare it with `ssh-keygen -lf "
        "/etc/ssh/ssh_host_ed25519_key.pub` on the host, then accept it here, or give "
        "`--accept-new-host-keys`"
    )
    wrong = msgspec.structs.replace(plain, host_key="ED25519 SHA256:other")
    assert server.run(server.provider.examine(wrong)).asks == "host-key", "another one than was shown"
    accepted = msgspec.structs.replace(plain, host_key=report.fingerprint)
    assert server.run(server.provider.examine(accepted)).ok
    old = (host.folder / "host_key").read_bytes(), (host.folder / "host_key.pub").read_bytes()
    host.new_host_key()
    try:
        server.run(server.provider.driver().ssh.close())
        report = server.run(server.provider.examine(msgspec.structs.replace(plain, accepts_new_keys=True)))
        known = server.root / "known_hosts"
        assert told(report) == (
            f"the host key of root@{host.ip} has changed (line 1 of {known} has another one): if the machine "
            f"was installed anew, run `ssh-keygen -R '{host.ip}' -f '{known}'` and try again; if it was not, "
            "somebody may be listening in between"
        )
    finally:
        for name, data in zip(("host_key", "host_key.pub"), old, strict=True):
            (host.folder / name).write_bytes(data)
            host.path(f"/run/{name}").write_bytes(data)
        host.stop_sshd()
        host.start_sshd()


def test_a_wrong_key_and_a_wrong_password(server: Server, host: Host) -> None:
    key = server.home / "wrong"
    make_key(key)
    config = server.home / "config"
    config.write_text(
        f"Host *\n  UserKnownHostsFile {server.lab.known_hosts}\n  IdentityFile {key}\n  IdentitiesOnly yes\n"
    )
    order = HostOrder(pool="lab", host=f"{USER}@{host.ip}", key_file=str(key), config_file=str(config))
    report = server.run(server.provider.examine(order))
    assert report.asks == "password"
    assert told(report).startswith(
        f"{USER}@{host.ip} refuses the key {key} for user `{USER}` (it accepts publickey, password, "
        "keyboard-interactive): name the right user and key, or run `ssh-copy-id -i"
    )
    report = server.run(server.provider.examine(msgspec.structs.replace(order, password="guessed")))
    assert (
        told(report) == f"{USER}@{host.ip} refuses the password: try again, or name a key: `--identity FILE`"
    )
    assert not report.asks


def test_a_password_installs_a_key_and_is_kept_nowhere(server: Server, host: Host) -> None:
    config = server.home / "config"
    config.write_text(
        f"Host *\n  UserKnownHostsFile {server.lab.known_hosts}\n  IdentityFile none\n  IdentitiesOnly yes\n"
    )
    order = HostOrder(pool="lab", host=f"{USER}@{host.ip}", config_file=str(config))
    assert server.run(server.provider.examine(order)).asks == "password"
    with_password = msgspec.structs.replace(order, password=PASSWORD)
    keys = host.path(f"/home/{USER}/.ssh/authorized_keys")
    before = keys.read_text()
    try:
        report = server.run(server.provider.examine(with_password))
        assert report.ok, report
        assert keys.read_text() == before + (server.root / "id_ed25519.pub").read_text()
        server.run(server.provider.driver().ssh.close())
        assert server.run(server.provider.examine(order)).ok, "the key does it from now on"
    finally:
        keys.write_text(before)
    server.run(server.provider.enlist([with_password]))
    for file in (path for path in server.home.rglob("*") if path.is_file()):
        assert PASSWORD.encode() not in file.read_bytes(), file
    assert PASSWORD not in repr(with_password)


@pytest.mark.parametrize("which", ["missing", "old"])
def test_no_python_and_an_old_one(server: Server, host: Host, which: str) -> None:
    host.python(which)  # type: ignore[arg-type]
    try:
        assert (
            told(server.examine(host))
            == {
                "missing": f"{host.name} has no python3: install Python 3.8 or newer there",
                "old": f"python3 of {host.name} is 3.6.8, too old: install Python 3.8 or newer there",
            }[which]
        )
    finally:
        host.python("present")


def test_a_home_that_is_full_or_read_only_or_noexec(server: Server, host: Host) -> None:
    assert server.examine(host).ok
    nodes = f"/root/.argosy/nodes/{host.name}"
    host.fill_disk()
    try:
        said = told(server.examine(host))
        assert said == f"the disk of /root/.argosy on {host.name} is full: make room there, {OWN_FOLDER}"
    finally:
        host.free_disk()
    try:
        host.mount_home("ro")
        assert told(server.examine(host)).endswith(
            f"on {host.name} is read-only: mount it with `rw`, {OWN_FOLDER}"
        )
        host.mount_home("noexec")
        assert told(server.examine(host)) == (
            f"{nodes} on {host.name} is mounted noexec, so that no program can be started from it: mount it "
            f"with `exec`, {OWN_FOLDER}"
        )
        assert server.examine(host, folder="/tmp/argosy-nodes").ok, "another folder will do"
    finally:
        host.mount_home("rw")


def test_two_servers_do_not_share_a_host(
    server: Server, runner: asyncio.Runner, hosts: HostLab, host: Host
) -> None:
    other = Server(runner, hosts, "theirs")
    try:
        other.add(host)
        server.add(host, hosts.hosts[1])
        theirs = other.claim(host)
        other.run(other.provider.ensure(theirs))
        owner = other.provider.driver().owner
        assert owner.endswith(f", state folder {other.home}")
        text = (
            f"is in use by another Argosy server ({owner}): take the host out of one of the two with "
            "`argosy pool remove`; if that server is gone for good, delete ~/.argosy/nodes on the host"
        )
        assert server.closed() == {host.name: text, hosts.hosts[1].name: ""}
        ours = server.claim(hosts.hosts[1], host, milli=500)
        with pytest.raises(border.OutOfCapacity) as refused:
            server.run(server.provider.ensure(ours))
        assert str(refused.value) == f"{host.name} {text}"
        assert not list(hosts.hosts[1].path("/root/.argosy/nodes").glob("*/clm-*")), (
            "the other host is given back"
        )
        assert list(server.run(server.provider.observe([]))) == []
        assert told(server.examine(host)) == f"{text.partition(': ')[0]}: {text.partition(': ')[2]}"
        other.run(other.provider.release(theirs.id))
        assert set(server.closed().values()) == {""}
    finally:
        other.end()


def test_a_host_that_does_not_answer_is_asked_again_until_it_gives_back(server: Server, host: Host) -> None:
    server.add(host)
    claim = server.claim(host)
    server.run(server.provider.ensure(claim))
    host.kill()
    try:
        with pytest.raises(border.Transient) as failed:
            server.run(server.provider.release(claim.id))
        assert str(failed.value) == (
            f"not given back yet: {host.name}: {host.name} refuses connections at port 22: is sshd running "
            "there, and is the port right?"
        )
        assert [fact.claim_id for fact in server.run(server.provider.observe([]))] == [claim.id]
        assert server.closed() == {host.name: "does not answer"}
        with pytest.raises(ArgosyError, match="is in use: 1 claim holds something there"):
            server.run(server.provider.dismiss([host.name], force=False))
    finally:
        host.boot()
    server.run(server.provider.release(claim.id))
    assert list(server.run(server.provider.observe([]))) == []
    assert not list(host.path("/root/.argosy/nodes").glob("*/clm-*"))
    assert server.closed() == {host.name: ""}


def test_a_gang_with_a_host_that_is_off_is_refused_and_leaves_nothing(server: Server, hosts: HostLab) -> None:
    first, second = hosts.hosts[1:]
    server.add(first, second)
    second.kill()
    try:
        with pytest.raises(border.OutOfCapacity) as caught:
            server.run(server.provider.ensure(server.claim(first, second)))
        assert str(caught.value) == (
            f"{second.name} refuses connections at port 22: is sshd running there, and is the port right?"
        )
        assert not list(first.path("/root/.argosy/nodes").glob("*/clm-*"))
    finally:
        second.boot()


def test_what_a_crash_left_before_it_wrote_anything_closes_no_host(server: Server, host: Host) -> None:
    server.add(host)
    left = f"/root/.argosy/nodes/{host.name}/clm-00000000000000000left"
    host.run(f"mkdir -p {left}/0 && echo '{{\"tag' > {left}/claim.json")
    assert server.closed() == {host.name: ""}
    assert not host.path(left).exists()


def test_what_was_begun_is_known_to_the_next_server_process(
    server: Server, runner: asyncio.Runner, host: Host
) -> None:
    server.add(host)
    claim = server.claim(host)
    server.run(server.provider.ensure(claim))
    before = server.run(server.provider.observe([]))
    again = SshProvider(
        Setting(
            root=server.root, clock=SystemClock(), ids=SystemIds(), environ=dict(os.environ), home=server.home
        )
    )
    assert list(server.run(again.observe([]))) == list(before)
    server.run(again.release(claim.id))
    server.run(again.driver().ssh.close())
    assert not list(host.path("/root/.argosy/nodes").glob("*/clm-*"))
