"""Ray's own jobs as they are, through the wire that agents speak: on the fake cluster, whose jobs really
run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from test_ray_refusals import a_ray_claim, ensure_error, provider

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.model.facts import RankFact, RankPhase
from argosy.providers.ray.provider import RayProvider
from argosy.testing.builders import a_node
from argosy.testing.fake_ray import FakeRay


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    cluster = FakeRay({"CPU": 16.0})
    yield cluster
    cluster.close()


def config(**fields: object) -> str:
    return msgspec.json.encode({"ray": fields}).decode()


async def held(one: RayProvider, ray: FakeRay, text: str) -> tuple[str, AgentClient]:
    claim = a_ray_claim(ray, config=text)
    await one.ensure(claim)
    (fact,) = await one.observe([claim.id])
    node = a_node(claim_id=claim.id, provider="ray", address=fact.nodes[0].address)
    return claim.id, AgentClient(lambda: one.reach(node))


async def watched(client: AgentClient, rank_id: str, *until: RankPhase) -> tuple[RankFact, str]:
    out = b""
    async for report in client.watch({}):
        out += b"".join(chunk.data for chunk in report.logs if chunk.rank_id == rank_id)
        for rank in report.ranks:
            if rank.id == rank_id and rank.phase in until:
                return rank, out.decode()
    raise AssertionError("the watch ended")


def test_a_job_is_submitted_as_it_is_listed_and_logged(ray: FakeRay, tmp_path: Path) -> None:
    command = 'echo "$WHO says hello from $MINE"; exit 3'

    async def main() -> None:
        one = provider(ray, tmp_path)
        text = config(entrypoint=command, runtime_env={"env_vars": {"MINE": "ray"}}, entrypoint_num_cpus=2)
        claim_id, client = await held(one, ray, text)
        assert ray.jobs == {}, "a claim holds nothing"
        order = RankOrder(id="att-1.0", run=command, env={"WHO": "argosy"}, run_now=True)
        await client.prepare([order])
        await client.prepare([order])
        fact, out = await watched(client, "att-1.0", RankPhase.EXITED)
        assert (fact.exit_code, out.splitlines()[-1]) == (3, "argosy says hello from ray")
        (job,) = ray.jobs.values()
        assert job.id == "att-1"
        assert job.asked["entrypoint"] == command
        assert job.asked["entrypoint_num_cpus"] == 2
        await client.forget(["att-1.0"])
        await client.prepare([order])  # a late repeat
        assert list(ray.jobs) == ["att-1"]
        await one.release(claim_id)
        assert await one.observe([]) == []
        assert list(ray.jobs) == ["att-1"], "Ray keeps the record"
        await client.close()
        await one.disconnect()

    asyncio.run(main())


def test_a_job_is_stopped(ray: FakeRay, tmp_path: Path) -> None:
    async def main() -> None:
        one = provider(ray, tmp_path)
        claim_id, client = await held(one, ray, config(native=True))
        await client.prepare([RankOrder(id="att-1.0", run="echo on; sleep 600", run_now=True)])
        await watched(client, "att-1.0", RankPhase.RUNNING)
        await client.stop(["att-1.0"], 1)
        fact, _ = await watched(client, "att-1.0", RankPhase.EXITED)
        assert fact.exit_code == 143
        await client.prepare([RankOrder(id="att-2.0", run="sleep 600", run_now=True)])
        await watched(client, "att-2.0", RankPhase.RUNNING)
        await one.release(claim_id)
        assert not ray.running()
        await client.close()
        await one.disconnect()

    asyncio.run(main())


def test_a_long_log_is_heard_as_it_grows_and_read_again(ray: FakeRay, tmp_path: Path) -> None:
    """More than is held at a time, from a job that goes on, in any number of looks; then from the
    beginning."""
    lines = 40_000
    go = tmp_path / "go"

    async def main() -> None:
        one = provider(ray, tmp_path)
        _, client = await held(one, ray, config(native=True))
        wait = f"until [ -e {go} ]; do sleep 0.05; done"
        run = f"seq -f 'line %.0f of a log that is long' {lines}; {wait}; echo end"
        await client.prepare([RankOrder(id="att-1.0", run=run, run_now=True)])
        out = b""
        async for report in client.watch({}):
            for chunk in report.logs:
                assert chunk.offset == len(out)
                out += chunk.data
            if b"line %d of" % lines in out and not go.exists():
                assert not ray.jobs["att-1"].is_over
                go.touch()
            if any(rank.phase is RankPhase.EXITED for rank in report.ranks):
                break
        assert out.decode().splitlines()[1:] == [
            f"line {n} of a log that is long" for n in range(1, lines + 1)
        ] + ["end"]
        fact, again = await watched(client, "att-1.0", RankPhase.EXITED)
        assert (again.encode(), fact.log_bytes) == (out, len(out))
        assert "GET /api/jobs/att-1/logs" not in ray.asked, "a long log is never asked for as a whole"
        await client.close()
        await one.disconnect()

    asyncio.run(main())


def test_why_ray_could_not_run_it_stands_in_its_log(ray: FakeRay, tmp_path: Path) -> None:
    async def main() -> None:
        one = provider(ray, tmp_path)
        _, client = await held(
            one, ray, config(entrypoint="true", runtime_env={"working_dir": "gcs://nothing.zip"})
        )
        await client.prepare([RankOrder(id="att-1.0", run="true", run_now=True)])
        fact, out = await watched(client, "att-1.0", RankPhase.EXITED)
        text = "its runtime environment could not be set up: Failed to download gcs://nothing.zip"
        assert (fact.exit_code, fact.detail, out) == (1, text, f"argosy: {text}\n")
        with pytest.raises(border.RequestRefused, match="commands run as Ray's own jobs here: there is no"):
            await client.forward(80)
        await client.close()
        await one.disconnect()

    asyncio.run(main())


def test_a_job_of_ray_has_no_nodes_of_its_own(ray: FakeRay, tmp_path: Path) -> None:
    error = ensure_error(provider(ray, tmp_path), a_ray_claim(ray, count=2, config=config(entrypoint="true")))
    assert str(error) == (
        "a job of Ray is one program, which asks Ray for nodes itself: leave out `num_nodes` (2)"
    )
