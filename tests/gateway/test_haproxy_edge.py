"""HAProxy as the edge: its configuration, places for replicas, the real program with TLS, HTTP/2 and gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from gateway_house import Replica, service, table

from argosy.gateway.edge_config import EdgeSettings, place_replicas, render_commands, render_config
from argosy.model.routes import KeyRoute, ReplicaRoute, RevisionRoute, ServiceRoute
from argosy.testing.ports import free_port


def _grpc(*addresses: str, **fields: Any) -> ServiceRoute:
    replicas = tuple(ReplicaRoute(id=address, address=address) for address in addresses)
    revisions = (RevisionRoute(id="v1", replicas=replicas),)
    return ServiceRoute(
        id="svc-g", name="g", protocol="grpc", hosts=("g.example",), revisions=revisions, **fields
    )


def test_the_configuration_changes_only_with_what_needs_a_reload() -> None:
    settings = EdgeSettings(
        folder="/run/edge", inner="/run/inner", listen=("127.0.0.1:80",), tls=("[::]:443",)
    )
    text = render_config(settings, [_grpc("10.0.0.1:1", public=True)])
    for line in (
        "option http-no-delay", "bind [::]:443 ssl crt /run/edge/certificates alpn h2,http/1.1",
        "server gateway unix@/run/inner", "server-template r 1-16 127.0.0.1:1 disabled proto h2",
    ):  # fmt: skip
        assert f"\n  {line}\n" in text
    assert text == render_config(settings, [_grpc("10.0.0.2:1", "10.0.0.3:1", public=True)])
    assert "deny_status 401\n" in render_config(settings, [_grpc("10.0.0.1:1")])
    key = KeyRoute(id="k", sha256="AB" * 32)
    assert f"-m str {'ab' * 32}" in render_config(settings, [_grpc("10.0.0.1:1", keys=(key,))])


def test_replicas_keep_their_places() -> None:
    one = place_replicas(_grpc("a:1", "b:1", "c:1"), {})
    assert one == {"a:1": 1, "b:1": 2, "c:1": 3}
    two = place_replicas(_grpc("b:1", "c:1", "d:1"), one)
    assert two == {"b:1": 2, "c:1": 3, "d:1": 1}
    commands = render_commands(_grpc("b:1", "c:1"), {"b:1": 2, "c:1": 3}, {"b:1": ("10.0.0.2", 1)})
    assert commands[:2] == [
        "set server grpc-svc-g/r2 addr 10.0.0.2 port 1",
        "set server grpc-svc-g/r2 state ready",
    ]
    assert "set server grpc-svc-g/r3 state maint" in commands, "nobody knows its address"


def _certificate(folder: Path) -> list[str]:
    files = [str(folder / "edge.pem"), str(folder / "edge.key")]
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=x"
    more = ["-addext", "subjectAltName=DNS:localhost", "-out", files[0], "-keyout", files[1]]
    subprocess.run(["openssl", *words.split(), *more], check=True, capture_output=True)
    return files


class _Echo:
    """A gRPC server in a thread."""

    def __init__(self) -> None:
        grpc = pytest.importorskip("grpc")
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        unary = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        stream = grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request] * 5))

        class Handler(grpc.GenericRpcHandler):  # type: ignore[misc,name-defined]
            def service(self, details: Any) -> Any:
                return unary if details.method.endswith("U") else stream

        self.server.add_generic_rpc_handlers((Handler(),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()


def _ask_grpc(port: int, key: str) -> tuple[bytes, int]:
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.default_authority", "g.example")]) as channel:
        metadata = [("authorization", f"Bearer {key}")]
        one = channel.unary_unary("/a/U")(b"hi", timeout=10, metadata=metadata)
        many = list(channel.unary_stream("/a/S")(b"hi", timeout=10, metadata=metadata))
    return one, len(many)


@pytest.mark.process
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed: CI has it")
def test_http_2_tls_and_grpc_through_the_real_edge(tmp_path: Path) -> None:
    plain, tls, echo = free_port(), free_port(), _Echo()
    control = tmp_path / "c.sock"
    command = [
        sys.executable, "-m", "argosy.gateway", "--control", str(control), "--edge", f"127.0.0.1:{plain}",
        "--edge-tls", f"127.0.0.1:{tls}", "--certificate", *_certificate(tmp_path), "--stop-s", "1",
    ]  # fmt: skip

    async def put(told: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(control))
        head = b"PUT /table HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
            told
        )
        writer.write(head + told)
        return (await reader.read()).split(b"\r\n\r\n")[1]

    async def curl(*words: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run, ["curl", "-sk", "-m", "10", *words], capture_output=True, text=True
        )
        return str(done.stdout)

    async def main() -> None:
        import grpc

        replica = await Replica().start()
        gateway = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert gateway.stdout is not None
        assert b"listening on" in await asyncio.wait_for(gateway.stdout.readline(), 30)
        try:
            key = KeyRoute(id="k", sha256=hashlib.sha256(b"sk-one").hexdigest())
            routes = table(service(replica.address), _grpc(f"127.0.0.1:{echo.port}", keys=(key,)))
            assert await put(msgspec.json.encode(routes)) == b'{"generation":1}'
            version = ("-w", " %{http_version}")
            lie = ("-H", "X-Forwarded-For: 6.6.6.6", "-H", "x_argosy_shadow: 1")
            assert await curl(*version, *lie, f"https://localhost:{tls}/s/web/x") == "ok 2"
            assert await curl(*version, f"http://127.0.0.1:{plain}/s/web/x") == "ok 1.1"
            head = replica.heads[0]
            assert b"x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: https\r\n" in head
            assert b"6.6.6.6" not in head and b"shadow" not in head
            assert await asyncio.to_thread(_ask_grpc, plain, "sk-one") == (b"hi", 5)
            with pytest.raises(grpc.RpcError, match="401"):
                await asyncio.to_thread(_ask_grpc, plain, "sk-two")
            reader, writer = await asyncio.open_connection("127.0.0.1", plain)
            writer.write(b"GET /s/web/stream HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), 10)  # the replica waits for us
            other = msgspec.structs.replace(routes.services[1], hosts=("new.example",))
            again = msgspec.structs.replace(routes, generation=2, services=(routes.services[0], other))
            assert await put(msgspec.json.encode(again)) == b'{"generation":2}'
            replica.go_on.set()
            await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10)  # the reload cut nothing
            writer.close()
        finally:
            gateway.terminate()
            await asyncio.wait_for(gateway.wait(), 30)
            await replica.kill()

    try:
        uvloop.run(main())
    finally:
        echo.server.stop(0)
        assert threading.active_count() < 50
