"""Real hosts behind the machines of a fake cloud: sshd at the machine's address, with cloud-init's keys.

    with CloudHosts("ubuntu") as hosts, MyFakeCloud(hosts=hosts, boot_s=0.3) as cloud: ...

A host has one user, whom the key of the user data lets in, and the host key of the user data.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import yaml

from argosy.testing.hosts import Host, HostLab


class CloudHosts:
    """Hosts of a lab, by the ids of machines. They die with the thread that boots them, so a pool of threads
    that stay does."""

    def __init__(self, user: str = "ubuntu") -> None:
        self.root = user == "root"
        self.lab = HostLab(0, user="ubuntu" if self.root else user)
        self._threads = ThreadPoolExecutor(8, "cloud-hosts")
        self._hosts: dict[str, CloudHost] = {}
        self._work: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._given = 20

    def __enter__(self) -> Self:
        self.lab.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for each in list(self._hosts):
            self.destroy(each)
        self._threads.shutdown()
        self.lab.__exit__(*error)

    def address(self) -> str:
        """One that no host has."""
        with self._lock:
            self._given += 1
            return f"{self.lab.subnet}.{self._given}"

    @property
    def boot_s(self) -> float:
        """How long the newest host took from its order until its sshd listened."""
        return max((each.booted_s for each in list(self._hosts.values())[-1:]), default=0.0)

    def cut(self, machine_id: str) -> None:
        """Its network is gone without a word, as when a machine loses power: nobody refuses a connection."""
        self._then(machine_id, self.host(machine_id).partition)
        self._work[machine_id].result()

    def host(self, machine_id: str) -> CloudHost:
        """The host of a machine, booted."""
        self._work[machine_id].result()
        return self._hosts[machine_id]

    # -- what the cloud does --------------------------------------------------------------------------------

    def boot(self, machine_id: str, ip: str, user_data: bytes) -> None:
        with self._lock:
            host = self.made(len(self.lab.hosts) + 1, machine_id, ip, user_data)
            self.lab.hosts.append(host)
            self._hosts[machine_id] = host
        self._then(machine_id, host.begin)

    def made(self, index: int, machine_id: str, ip: str, user_data: bytes) -> CloudHost:
        return CloudHost(self.lab, index, machine_id, ip, user_data, root=self.root)

    def power_off(self, machine_id: str) -> None:
        self._then(machine_id, self._hosts[machine_id].kill)

    def power_on(self, machine_id: str) -> None:
        self._then(machine_id, self._hosts[machine_id].boot)

    def tell(self, machine_id: str, path: str, text: str) -> None:
        """What the machine's metadata service says at `path` from now on."""
        self._hosts[machine_id].metadata[path] = text

    def destroy(self, machine_id: str) -> None:
        host = self._hosts.pop(machine_id, None)
        if host is not None:
            self._then(machine_id, host.end)
            self._work.pop(machine_id).result()

    def _then(self, machine_id: str, act: Any) -> None:
        """Acts on one host happen one after the other."""
        before = self._work.get(machine_id)

        def run() -> None:
            if before is not None:
                before.exception()
            act()

        self._work[machine_id] = self._threads.submit(run)


class CloudHost(Host):
    """One machine's host, and what its metadata service says."""

    def __init__(
        self, lab: HostLab, index: int, machine_id: str, ip: str, user_data: bytes, *, root: bool = False
    ) -> None:
        super().__init__(lab, index, ())
        self._root, self._made_s = root, time.monotonic()
        self.ip = ip
        self._init = yaml.safe_load(user_data) if user_data.startswith(b"#cloud-config") else {}
        self.metadata = {"instance-id": machine_id, "local-ipv4": ip}
        self.booted_s = 0.0

    def begin(self) -> None:
        """For the first time: with the keys that cloud-init puts there."""
        self.prepare()
        keys = self._init.get("ssh_keys", {})
        if keys:
            (self.folder / "host_key").write_text(keys["ed25519_private"])
            (self.folder / "host_key.pub").write_text(keys["ed25519_public"] + "\n")
        for home in ("root-home", f"homes/{self.lab.user}"):
            folder = self.disk / home / ".ssh"
            folder.mkdir(parents=True, exist_ok=True)
            ours = home != "root-home" or self._root
            allowed = self._init.get("ssh_authorized_keys", ()) if ours else ()
            (folder / "authorized_keys").write_text("".join(f"{each}\n" for each in allowed))
        self.serve()
        self.boot()
        self.booted_s = time.monotonic() - self._made_s

    def serve(self) -> None:
        """Services that the cloud gives to the machine."""

    def end(self) -> None:
        self.kill()
        self.remove()
