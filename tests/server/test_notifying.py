"""People are told of what happens to their jobs: a real HTTP server, a real SMTP server, and a database that
outlives the one that tells."""

from __future__ import annotations

import asyncio
import http.server
import json
import logging
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.controllers.telling import marked
from argosy.model.kinds.job import job_task
from argosy.model.notify import Notify, sealed, sealed_id
from argosy.model.phases import Outcome, WorkloadPhase
from argosy.model.rows import Event, Workload
from argosy.server.channels import ChannelFile
from argosy.server.notifying import Notifier
from argosy.server.sending import sign
from argosy.spec import parse_task, render_task
from argosy.store import Store
from argosy.testing.builders import a_job, changed
from argosy.testing.virtual_time import EPOCH_MS, SimIds


class Hooks:
    """A web server that keeps what it gets and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []  # by request; then 200
        hooks = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hooks.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(hooks.answers.pop(0) if hooks.answers else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


class Mails(socketserver.ThreadingTCPServer):
    """An SMTP server, as far as it takes mail."""

    daemon_threads = True

    def __init__(self) -> None:
        self.got: list[str] = []
        mails = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 here\r\n")
                while line := self.rfile.readline():
                    word = line[:4].upper()
                    if word == b"DATA":
                        self.wfile.write(b"354 go on\r\n")
                        text = b""
                        while not text.endswith(b"\r\n.\r\n"):
                            text += self.rfile.readline()
                        mails.got.append(text.decode())
                    self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 yes\r\n")
                    if word == b"QUIT":
                        return

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    made = Hooks()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def mails() -> Iterator[Mails]:
    with Mails() as made:
        yield made
        made.shutdown()


class Clock:
    def __init__(self) -> None:
        self.ms = EPOCH_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


class Place:
    """A database in a folder, and a notifier on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.store: Store
        self.notifier: Notifier

    async def open(self) -> None:
        self.store = await Store.open(f"sqlite://{self.folder}/argosy.db", ids=SimIds(), clock=self.clock)
        self.notifier = Notifier(self.store, ChannelFile(self.folder), self.clock, "srv-1")

    async def job_ends(self, *wishes: Notify, outcome: Outcome = Outcome.FAILED) -> Workload:
        """As a launch and the shell write it."""
        shown, kept = sealed("0", wishes)
        task = msgspec.structs.replace(job_task(a_job()), notify=shown)
        job = a_job(id="job-1", managed=True, number=12, name="train")
        job = changed(job, spec=msgspec.structs.replace(job.spec, task=task))
        [row] = await self.store.commit([job], secrets={sealed_id("job-1"): kept} if kept else {})
        over = changed(row, phase=WorkloadPhase.FINISHED, outcome=outcome)
        told = Event(at_ms=self.clock.ms, subject="job-1", code=outcome.value, text="exit code 3")
        [over] = await self.store.commit([over], events=[marked(told, over, self.notifier)])
        return over


def test_a_webhook_is_signed_and_tried_again_until_it_is_taken(tmp_path: Path, hooks: Hooks) -> None:
    hooks.answers = [500, 503]
    wish = Notify(to=f"{hooks.url}/hook?token=hush", secret="key")

    async def work() -> None:
        place = Place(tmp_path)
        await place.open()
        await place.job_ends(wish, Notify(to=f"slack+{hooks.url}/slack"))
        assert await place.notifier.step() == 0.0
        assert [path for path, *_ in hooks.got] == ["/hook?token=hush", "/slack"]
        await place.store.close()
        await place.open()  # another server: it goes on where that one was
        assert await place.notifier.step() == pytest.approx(2.0)
        place.clock.ms += 2000
        await place.notifier.step()  # 503 was for Slack
        assert [path for path, *_ in hooks.got[2:]] == ["/hook?token=hush", "/slack"]
        assert await place.notifier.step() is None  # everybody has heard of it
        assert await place.store.load_secrets(sealed_id("job-1")) == {}
        await place.store.close()

    asyncio.run(work())
    _, headers, body = hooks.got[0]
    assert headers["x-argosy-signature"] == sign("key", body)
    assert headers["x-argosy-event"] == "failed" and headers["x-argosy-delivery"] == "1"
    told = json.loads(body)
    assert (told["job"], told["name"], told["text"]) == ("12", "train", "exit code 3")
    assert hooks.got[2][2] == body  # the same delivery again
    assert json.loads(hooks.got[1][2]) == {"text": "Argosy: job 12 `train` failed\nexit code 3"}


def test_a_mail_is_sent_and_channels_hear_of_their_projects(
    tmp_path: Path, hooks: Hooks, mails: Mails
) -> None:
    (tmp_path / "notify.yaml").write_text(
        f"smtp: {{host: 127.0.0.1, port: {mails.server_address[1]}, from: argosy@example.com}}\n"
        f"channels:\n  team: {{to: '{hooks.url}/team', projects: [default], events: [failed]}}\n"
        f"  other: {{to: '{hooks.url}/other', projects: [elsewhere]}}\n  named: {{to: '{hooks.url}/named'}}\n"
    )

    async def work() -> None:
        place = Place(tmp_path)
        await place.open()
        await place.job_ends(Notify(to="me@example.com"), Notify(to="named"))
        await place.notifier.step()
        assert await place.notifier.step() is None
        await place.store.close()

    asyncio.run(work())
    [mail] = mails.got
    assert "To: me@example.com" in mail and "Subject: Argosy: job 12 `train` failed" in mail
    assert "exit code 3" in mail
    assert sorted(path for path, *_ in hooks.got) == ["/named", "/team"]


@pytest.mark.parametrize(
    ("outcome", "on", "told"),
    [
        (Outcome.SUCCEEDED, ("failed",), False),
        (Outcome.LOST, ("failed",), True),
        (Outcome.SUCCEEDED, ("succeeded", "started"), True),
    ],
)
def test_only_what_was_asked_for_is_told(
    tmp_path: Path, hooks: Hooks, outcome: Outcome, on: tuple[str, ...], told: bool
) -> None:
    async def work() -> None:
        place = Place(tmp_path)
        await place.open()
        await place.job_ends(Notify(to=hooks.url, on=on), outcome=outcome)
        await place.notifier.step()
        await place.store.close()

    asyncio.run(work())
    assert bool(hooks.got) is told


def test_what_is_refused_for_good_is_told_in_the_events_and_names_no_address(
    tmp_path: Path, hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    hooks.answers = [404]

    async def work() -> list[Event]:
        place = Place(tmp_path)
        await place.open()
        with caplog.at_level(logging.INFO):
            await place.job_ends(Notify(to=f"{hooks.url}/T0KEN"), Notify(to="me@example.com"))
            await place.notifier.step()
        assert await place.notifier.step() is None
        events = await place.store.load_events(subject="job-1")
        await place.store.close()
        return events

    texts = [event.text for event in asyncio.run(work()) if event.code == "not-told"]
    assert texts == [
        "address 1 could not be told that it failed: it answered 404",
        "address 2 could not be told that it failed: the server has no `smtp` in its notify.yaml",
    ]
    assert "T0KEN" not in caplog.text and "example.com" not in caplog.text
    assert b"T0KEN" not in (tmp_path / "argosy.db").read_bytes()


def test_addresses_are_in_no_rendering_of_a_task() -> None:
    text = (
        "run: x\nnotify: [team, 'https://h.example/T0KEN', {to: me@example.com, events: failed, secret: k3y}]"
    )
    task = parse_task(text).tasks[0]
    assert [wish.to for wish in task.notify] == ["team", "https://h.example/T0KEN", "me@example.com"]
    for shown in (repr(task), render_task(task)):
        assert "team" in shown
        assert not any(word in shown for word in ("T0KEN", "me@example.com", "k3y"))
