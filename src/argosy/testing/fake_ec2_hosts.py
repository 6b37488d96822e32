"""Real hosts behind the fake EC2's instances: sshd at the instance's address, cloud-init's keys, metadata.

    with Ec2Hosts() as hosts, FakeEc2(machines=hosts, boot_s=0.3) as cloud:
        hosts.join(cloud, "us-east-1")

A host has the user `ubuntu`, whom the key of the user data lets in, and the host key of the user data. Its
metadata service speaks IMDSv2 alone, at 169.254.169.254 in its own network.
"""

from __future__ import annotations

import ctypes
import http.server
import os
import socketserver
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Self

import yaml

from argosy.testing.fake_ec2_cloud import Ec2Cloud
from argosy.testing.hosts import Host, HostLab

_METADATA: Final = "169.254.169.254"
_TOKEN: Final = "token-of-this-boot"
_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_libc = ctypes.CDLL(None, use_errno=True)


class Ec2Hosts:
    """`fake_ec2_cloud.Machines` on hosts of a lab. Hosts die with the thread that boots them, so a pool of
    threads that stay does."""

    def __init__(self) -> None:
        self.lab = HostLab(0, user="ubuntu")
        self._threads = ThreadPoolExecutor(8, "ec2-hosts")
        self._hosts: dict[str, _Instance] = {}
        self._work: dict[str, Future[None]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.lab.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for each in list(self._hosts):
            self.destroy(each)
        self._threads.shutdown()
        self.lab.__exit__(*error)

    def join(self, cloud: Ec2Cloud, region: str, zones: int = 3) -> None:
        """The region's default VPC is the lab's network, with a subnet for each of some zones."""
        cloud.delete_default_vpc(region)
        backend = cloud.backend(region)
        vpc = backend.create_vpc(f"{self.lab.subnet}.0/24", is_default=True)
        for index in range(zones):
            cidr = f"{self.lab.subnet}.{64 * index}/26"
            subnet = backend.create_subnet(vpc.id, cidr, availability_zone=f"{region}{'abc'[index]}")
            subnet.map_public_ip_on_launch = True

    @property
    def boot_s(self) -> float:
        """How long the newest host took from its order until its sshd listened."""
        return max((each.booted_s for each in list(self._hosts.values())[-1:]), default=0.0)

    def cut(self, instance_id: str) -> None:
        """Its network is gone without a word, as when a machine loses power: nobody refuses a connection."""
        self._then(instance_id, self.host(instance_id).partition)
        self._work[instance_id].result()

    def host(self, instance_id: str) -> Host:
        """The host of an instance, booted."""
        self._work[instance_id].result()
        return self._hosts[instance_id]

    # -- what the cloud does --------------------------------------------------------------------------------

    def boot(self, instance_id: str, ip: str, user_data: bytes) -> None:
        with self._lock:
            host = _Instance(self.lab, len(self.lab.hosts) + 1, instance_id, ip, user_data)
            self.lab.hosts.append(host)
            self._hosts[instance_id] = host
        self._then(instance_id, host.begin)

    def power_off(self, instance_id: str) -> None:
        self._then(instance_id, self._hosts[instance_id].kill)

    def power_on(self, instance_id: str) -> None:
        self._then(instance_id, self._hosts[instance_id].boot)

    def tell(self, instance_id: str, path: str, text: str) -> None:
        self._hosts[instance_id].metadata[path] = text

    def destroy(self, instance_id: str) -> None:
        host = self._hosts.pop(instance_id, None)
        if host is not None:
            self._then(instance_id, host.end)
            self._work.pop(instance_id).result()

    def _then(self, instance_id: str, act: Any) -> None:
        """Acts on one host happen one after the other."""
        before = self._work.get(instance_id)

        def run() -> None:
            if before is not None:
                before.exception()
            act()

        self._work[instance_id] = self._threads.submit(run)


class _Instance(Host):
    """One instance's host, and what its metadata service says."""

    def __init__(self, lab: HostLab, index: int, instance_id: str, ip: str, user_data: bytes) -> None:
        super().__init__(lab, index, ())
        self._made_s = time.monotonic()
        self.ip = ip
        self._init = yaml.safe_load(user_data) if user_data.startswith(b"#cloud-config") else {}
        self.metadata = {"instance-id": instance_id, "local-ipv4": ip}
        self._service: http.server.ThreadingHTTPServer | None = None
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
            folder.mkdir(parents=True)
            allowed = self._init.get("ssh_authorized_keys", ()) if home != "root-home" else ()
            (folder / "authorized_keys").write_text("".join(f"{each}\n" for each in allowed))
        self._serve_metadata()
        self.boot()
        self.booted_s = time.monotonic() - self._made_s

    def end(self) -> None:
        if self._service is not None:
            self._service.shutdown()
            self._service.server_close()
        self.kill()
        self.remove()

    def _serve_metadata(self) -> None:
        self.network(f"addr add {_METADATA}/32 dev lo")
        ready = threading.Event()

        def serve() -> None:  # a thread enters a network alone: the socket is made there
            space = os.open(f"/run/netns/{self.space}", os.O_RDONLY)
            if _libc.setns(space, _NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(space)
            self._service = _Service((_METADATA, 80), _asker(self))
            ready.set()
            self._service.serve_forever(0.05)

        threading.Thread(target=serve, daemon=True).start()
        ready.wait(5)


class _Service(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:  # without asking for a name of the address: nobody answers there
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


def _asker(host: _Instance) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *said: object) -> None: ...

        def do_PUT(self) -> None:
            self._say(200, _TOKEN) if self.path == "/latest/api/token" else self._say(404)

        def do_GET(self) -> None:
            if self.headers.get("X-aws-ec2-metadata-token") != _TOKEN:
                self._say(401)
                return
            text = host.metadata.get(self.path.removeprefix("/latest/meta-data/"))
            self._say(404) if text is None else self._say(200, text)

        def _say(self, status: int, text: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    return Handler
