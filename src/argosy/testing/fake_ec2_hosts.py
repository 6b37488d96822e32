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
from typing import Final

from argosy.testing.cloud_hosts import CloudHost, CloudHosts
from argosy.testing.fake_ec2_cloud import Ec2Cloud

_METADATA: Final = "169.254.169.254"
_TOKEN: Final = "token-of-this-boot"
_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_libc = ctypes.CDLL(None, use_errno=True)


class Ec2Hosts(CloudHosts):
    """`fake_ec2_cloud.Machines` on hosts of a lab."""

    def join(self, cloud: Ec2Cloud, region: str, zones: int = 3) -> None:
        """The region's default VPC is the lab's network, with a subnet for each of some zones."""
        cloud.delete_default_vpc(region)
        backend = cloud.backend(region)
        vpc = backend.create_vpc(f"{self.lab.subnet}.0/24", is_default=True)
        for index in range(zones):
            cidr = f"{self.lab.subnet}.{64 * index}/26"
            subnet = backend.create_subnet(vpc.id, cidr, availability_zone=f"{region}{'abc'[index]}")
            subnet.map_public_ip_on_launch = True

    def made(self, index: int, machine_id: str, ip: str, user_data: bytes) -> CloudHost:
        return _Instance(self.lab, index, machine_id, ip, user_data)


class _Instance(CloudHost):
    """One instance's host, with a metadata service."""

    _service: http.server.ThreadingHTTPServer | None = None

    def serve(self) -> None:
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

    def end(self) -> None:
        if self._service is not None:
            self._service.shutdown()
            self._service.server_close()
        super().end()


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
