"""State folders of older schemas with live work in them: the real server upgrades, shows and ends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from test_server_process import Process, home

from argosy.store import schema
from argosy.store.database import Database
from argosy.store.migrate import alembic_config

__all__ = ["home"]
HERE = Path(__file__).parent / "databases"
OLDER = [f"{number:04d}" for number in range(1, int(schema.HEAD))]
READS = (
    *(
        "/status",
        "/status?all=true",
        "/jobs",
        "/jobs?cluster=train",
        "/pools",
        "/tenancy",
        "/costs",
        "/events",
    ),
    "/queues/explain?queue=default/ann",
)
#: Since this version the databases are what the server of that time left behind, not written by hand.
LEFT_BEHIND = "0003"


def write_old(folder: Path, version: str) -> None:
    """The database as a server of that time left it."""
    database = Database(f"sqlite://{folder}/argosy.db")

    def work(connection: sa.Connection) -> None:
        command.upgrade(alembic_config(connection), version)
        connection.exec_driver_sql("DELETE FROM head")
        for line in (HERE / f"{version}.sql").read_text().splitlines():
            connection.exec_driver_sql(line)

    database.run(work, write=True)
    database.close()


def _is_explained(server: Process, workload_id: str) -> bool:
    return bool(server.raw.get(f"/workloads/{workload_id}/explain").status == 200)


def until(reached: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_every_older_schema_has_a_database_here() -> None:
    assert [path.stem for path in sorted(HERE.glob("*.sql"))] == OLDER


@pytest.mark.parametrize("version", OLDER)
def test_an_older_state_folder_with_live_work(home: Path, version: str) -> None:
    write_old(home, version)
    server = Process(home)
    answers = {path: server.raw.get(path) for path in READS}
    assert {path: answer.body for path, answer in answers.items() if answer.status != 200} == {}
    clusters = {each["name"]: each for each in answers["/status"].json["clusters"]}
    assert set(clusters) == {"train", "rest"} and clusters["rest"]["status"] == "stopped"
    assert clusters["train"]["autostop"] == {"idle_s": 86400, "down": True}
    on_train = {job["number"]: job for job in answers["/jobs?cluster=train"].json["jobs"]}
    assert (on_train[1]["name"], on_train[1]["status"]) == ("one", "succeeded")
    assert on_train[1]["attempt"].startswith("att-")
    assert {job["user"] for job in on_train.values()} == {"ann"}
    managed = {job["name"]: job for job in answers["/jobs"].json["jobs"]}
    assert managed["four"]["errors"] == 1
    if version < LEFT_BEHIND:  # its row says so; the others learn only now that their nodes are gone
        assert managed["four"]["recoveries"] >= 1
    if version > LEFT_BEHIND:
        (budget,) = server.raw.get("/budgets").json["budgets"]
        assert (budget["project"], budget["monthly_micro_usd"]) == ("default", 100_000_000)
        assert server.raw.get("/audit/verify").status == 200
    for workload in (clusters["train"], on_train[3], managed["five"]):
        until(partial(_is_explained, server, workload["id"]))
    for name in ("train", "rest"):
        assert server.raw.ask("DELETE", f"/clusters/{name}").status == 200
    assert server.raw.post("/jobs/cancel", {"all": True}).status == 200

    def is_over() -> bool:
        jobs = server.raw.get("/jobs?live=true").json["jobs"]
        return not jobs and not server.raw.get("/status").json["clusters"]

    until(is_over)
    assert server.stop() == 0
    log = (home / "server.log").read_text()
    assert "Traceback" not in log and "ERROR" not in log
