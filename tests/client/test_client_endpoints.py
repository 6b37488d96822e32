"""Every endpoint has a method in both clients, and calls go out and come back right."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from argosy.api.endpoint import API_VERSION
from argosy.api.location import Location
from argosy.client.async_client import AsyncClient
from argosy.client.client import Client
from argosy.model.errors import ArgosyError
from argosy.model.resources import Autostop
from argosy.model.task import Task
from argosy.testing.fake_server import FakeServer
from argosy.testing.ports import free_port


def test_a_method_says_what_it_takes() -> None:
    client = Client(Location(Path("/nonexistent")))
    assert str(inspect.signature(client.cancel)).startswith("(cluster: 'str | None', jobs:")
    assert inspect.getdoc(client.cancel) == ("Cancel jobs of a cluster, or managed jobs, by number or id.")
    with pytest.raises(TypeError, match=r"cancel\(\) got an unexpected keyword argument 'job'"):
        client.cancel("dev", job="1")  # type: ignore[call-arg]


def test_a_round_of_calls(server: FakeServer, client: Client) -> None:
    reply = client.launch(Task(name="t", run="echo hello"), cluster="dev")
    assert (reply.cluster, reply.created, reply.job and reply.job.number) == ("dev", True, 1)
    assert [one.name for one in client.status().clusters] == ["dev"]
    assert client.cluster("dev").status == "running"
    jobs = client.exec("dev", [Task(run="echo a"), Task(run="exit 3")]).jobs
    assert [job.number for job in jobs] == [2, 3]
    assert client.job(jobs[1].id).status == "failed"
    page = client.queue("dev", limit=2)
    assert [job.number for job in page.jobs] == [3, 2]
    assert [job.number for job in client.queue("dev", limit=2, after=page.next).jobs] == [1]
    client.autostop("dev", Autostop(idle_s=600, down=True))
    assert client.cluster("dev").autostop == Autostop(idle_s=600, down=True)
    client.stop("dev")
    assert client.cluster("dev").status == "stopped"
    client.start("dev")
    assert client.jobs_launch([Task(name="m", run="echo x")]).jobs[0].number == 1
    assert client.queue().jobs[0].managed
    assert client.cancel(None, ["1"]).names == ("1",)
    assert client.costs(7).total_micro_usd == 1_200_000
    assert [one.provider for one in client.check().findings] == ["local", "aws"]
    assert client.offers("A100").offers and not client.offers("H100").offers
    assert client.plan(Task(run="x")).plan.choices
    assert client.plan_pipeline([Task(name="a", run="x"), Task(run="y")]).method == "tree"
    assert client.events("dev", after=0, limit=5).events == ()
    assert client.server_status().clusters == 1
    client.down("dev")
    with pytest.raises(ArgosyError, match="no cluster `dev`") as error:
        client.cluster("dev")
    assert error.value.code == "not-found"


def test_names_are_quoted_in_paths(server: FakeServer, client: Client) -> None:
    with pytest.raises(ArgosyError, match="no cluster `a/b é`"):
        client.cluster("a/b é")
    assert server.requests[-1].target == "/v1/clusters/a%2Fb%20%C3%A9"
    with pytest.raises(ArgosyError) as error:
        client.down("")
    assert error.value.code == "usage"


def test_one_connection_serves_many_calls(server: FakeServer, client: Client) -> None:
    for _ in range(20):
        client.status()
    assert len(server.opened) == 1
    assert len(server.seen("health")) == 1


def test_a_connection_that_the_server_closed_is_replaced(server: FakeServer, client: Client) -> None:
    client.status()
    server.cut()
    client.status()
    server.stop()
    server.start()
    client.status()


def test_launch_is_idempotent_by_key(server: FakeServer, client: Client) -> None:
    one = client.launch(Task(run="echo 1"), cluster="a", key="k")
    two = client.launch(Task(run="echo 1"), cluster="a", key="k")
    assert one == two and len(server.jobs) == 1
    client.launch(Task(run="echo 1"), cluster="a")
    assert len(server.jobs) == 2


def test_a_server_that_dies_before_it_answers_gets_the_request_again(
    server: FakeServer, client: Client
) -> None:
    client.status()
    gate = server.waits["launch"] = threading.Event()
    timer = threading.Timer(0.1, lambda: (gate.set(), server.waits.clear(), server.cut()))
    timer.start()
    assert client.launch(Task(run="echo 1"), cluster="a").cluster == "a"
    timer.join()
    keys = {request.body for request in server.seen("launch")}
    assert len(keys) == 1 and len(server.jobs) == 1


def test_wrong_token(server: FakeServer, client: Client) -> None:
    server.token = "right"
    with pytest.raises(ArgosyError) as error:
        client.status()
    assert error.value.code == "unauthorized"
    with Client(Location(server.socket, token="right")) as other:
        other.status()


def test_over_tcp_with_a_token() -> None:
    with FakeServer(token="secret") as server:
        location = Location(None, host="127.0.0.1", port=server.port, token="secret")
        assert "secret" not in repr(location)
        with Client(location) as client:
            assert client.status().clusters == ()
            client.launch(Task(run="echo 1"), cluster="x")
        assert server.requests[-1].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("api", "hint"), [(0, "restart the server with this version"), (99, "install the server's version")]
)
def test_versions_that_cannot_talk(server: FakeServer, client: Client, api: int, hint: str) -> None:
    server.api = api
    with pytest.raises(ArgosyError) as error:
        client.status()
    assert error.value.code == "version-mismatch"
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, b'{"detail":"Not Found"}', "version-mismatch"),
        (413, b"", "too-large"),
        (502, b"<html>Bad Gateway</html>", "server-unreachable"),
        (401, b"no", "unauthorized"),
        (500, b"oops", "internal"),
        (200, b"<html>hello</html>", "version-mismatch"),
        (200, b'{"clusters": 7}', "version-mismatch"),
        (422, b'{"code":"no-offer","what":"none"}', "no-offer"),
        (422, b'{"code":"from-the-future","what":"none"}', "internal"),
    ],
)
def test_replies_that_are_errors(
    server: FakeServer, client: Client, status: int, body: bytes, code: str
) -> None:
    server.raw_failures["status"] = [(status, body)]
    with pytest.raises(ArgosyError) as error:
        client.status()
    assert error.value.code == code
    assert client.status().clusters == ()  # the connection is still in step


def test_a_server_that_is_starting_is_waited_for(server: FakeServer, client: Client) -> None:
    server.failures["status"] = [ArgosyError("server-starting", "not yet")] * 2
    assert client.status().clusters == ()


def test_too_large_for_the_server(server: FakeServer, client: Client) -> None:
    client.status()
    server.body_limit_bytes = 1000
    with pytest.raises(ArgosyError) as error:
        client.put_chunks([("0" * 64, bytes(8 << 20))])
    assert error.value.code == "too-large"


def test_too_large_to_send(client: Client) -> None:
    with pytest.raises(ArgosyError, match=r"`plan` is 6\d MB; at most 64 MB"):
        client.plan(Task(run="x" * (65 << 20)))


def test_nobody_listens(short_dir) -> None:
    with pytest.raises(ArgosyError, match="it is not running") as error:
        Client(Location(short_dir / "no.sock")).status()
    assert error.value.code == "server-unreachable"
    port = free_port()
    with pytest.raises(ArgosyError, match=f"http://127.0.0.1:{port}"):
        Client(Location(None, host="127.0.0.1", port=port)).status()


def test_somebody_else_listens(short_dir) -> None:
    """A peer that does not speak HTTP is no Argosy server."""
    path = short_dir / "x.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def talk() -> None:
            with suppress(OSError):  # the listener is closed when the test has seen enough
                for _ in range(2):
                    peer, _ = listener.accept()
                    peer.recv(65536)
                    peer.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
                    peer.close()

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        with pytest.raises(ArgosyError) as error:
            Client(Location(path)).status()
        assert error.value.code == "server-unreachable"


def test_silence_is_no_answer(server: FakeServer, short_dir) -> None:
    server.waits["status"] = threading.Event()
    with Client(Location(server.socket), reply_timeout_s=0.2) as client, pytest.raises(ArgosyError) as error:
        client.status()
    assert "no answer within" in error.value.what


def test_threads_share_a_client(server: FakeServer, client: Client) -> None:
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for _ in range(20):
                client.launch(Task(run="echo x"), cluster=f"c{index}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and len(server.jobs) == 120


def test_the_async_client(server: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient(Location(server.socket)) as client:
            replies = await asyncio.gather(
                *(client.launch(Task(run="echo hi"), cluster=f"c{index}") for index in range(20))
            )
            assert {reply.cluster for reply in replies} == {f"c{index}" for index in range(20)}
            server.cut()
            assert len((await client.status()).clusters) == 20
            with pytest.raises(ArgosyError) as error:
                await client.cluster("none")
            assert error.value.code == "not-found"
            job = replies[0].job
            assert job is not None
            pieces = [piece async for piece in client.logs(job.id)]
            assert [piece.data for piece in pieces] == [b"hi\n", b""]
            assert pieces[-1].frame.end
            with pytest.raises(ArgosyError):
                _ = [piece async for piece in client.logs("job-none")]

    asyncio.run(main())


def test_an_async_call_that_is_cancelled_leaves_the_client_usable(server: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient(Location(server.socket)) as client:
            await client.status()
            gate = server.waits["status"] = threading.Event()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.status(), 0.1)
            server.waits.clear()
            gate.set()
            assert (await client.health()).api == API_VERSION

    asyncio.run(main())
