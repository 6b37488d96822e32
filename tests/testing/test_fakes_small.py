"""The small fakes and the builders."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import LogChunk
from argosy.model.kinds.job import JobSpec
from argosy.model.rows import Row
from argosy.store.schema import parse_row
from argosy.testing import builders
from argosy.testing.memory_log_sink import MemoryLogSink


def test_log_sink_drops_what_it_has_and_refuses_gaps() -> None:
    async def main() -> MemoryLogSink:
        sink = MemoryLogSink()
        await sink.write(LogChunk(rank_id="att-1.0", offset=0, data=b"hello "))
        await sink.write(LogChunk(rank_id="att-1.0", offset=3, data=b"lo world"))
        with pytest.raises(ValueError, match="gap"):
            await sink.write(LogChunk(rank_id="att-1.0", offset=99, data=b"x"))
        await sink.finish("att-1.0")
        return sink

    sink = asyncio.run(main())
    assert sink.read("att-1.0") == b"hello world"
    assert sink.stored("att-1.0") == 11
    assert sink.finished == {"att-1.0"}


def test_log_sink_masks_across_chunks() -> None:
    async def main() -> bytes:
        sink = MemoryLogSink()
        sink.mask("r.0", ["hunter2", ""])
        await sink.write(LogChunk(rank_id="r.0", offset=0, data=b"pw=hun"))
        await sink.write(LogChunk(rank_id="r.0", offset=6, data=b"ter2."))
        return sink.read("r.0")

    assert asyncio.run(main()) == b"pw=*******."


@pytest.mark.parametrize(
    "row",
    [
        builders.a_job(),
        builders.a_job(managed=True),
        builders.a_cluster(num_nodes=2),
        builders.an_attempt(),
        builders.a_claim(),
        builders.a_node(gpus=2),
    ],
    ids=lambda row: type(row).__name__,
)
def test_builders_make_rows_that_survive_the_codec(row: Row) -> None:
    assert parse_row(type(row), msgspec.json.encode(row).decode()) == row


def test_builders_take_fields_and_refuse_wrong_names() -> None:
    job = builders.a_job(number=7, task=builders.a_task(run="x", num_nodes=2))
    assert job.number == 7
    assert isinstance(job.spec, JobSpec)
    assert job.spec.task.num_nodes == 2
    with pytest.raises(TypeError):
        builders.a_job(nummer=7)


def test_real_ids_rise_and_real_clock_goes_on() -> None:
    ids = SystemIds()
    made = [ids.new("job") for _ in range(2000)]
    assert made == sorted(set(made))
    assert all(len(one) == len("job-") + 20 for one in made)
    clock = SystemClock()
    assert clock.now_ms() > 1_600_000_000_000
    assert clock.monotonic_s() <= clock.monotonic_s()
