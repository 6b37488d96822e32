"""Why something waits, word for word; how long it will run."""

from __future__ import annotations

import random

import msgspec
import pytest
from pool_world import GIB, World, gpus, job, node, running, tenancy

from argosy.model.offer import DeviceShare, Placement
from argosy.model.scheduling import Isolation
from argosy.model.tenancy import Queue, Tenancy
from argosy.scheduler.ask import Ask, Need, Running, Waiting
from argosy.scheduler.cache import PoolCache
from argosy.scheduler.estimate import (
    CLASS_DEFAULT_S,
    History,
    estimate_s,
    expected_end_ms,
    kinds_of,
    remember,
)
from argosy.scheduler.explain import users_text, why_evicted
from argosy.scheduler.pool import Pool
from argosy.scheduler.snapshot import PoolSnapshot

NOW = 1_000_000


def why(world: World, ask: Ask) -> Waiting:
    world.submit(ask)
    world.cycle()
    return world.pool.explain(ask.id, world.now_ms)


def busy(*queues: Queue, nodes: int = 1, **policy: object) -> World:
    """3 of 4 GPUs of n0 are in use for another 100 s."""
    world = World(Pool(tenancy(*queues, **policy), machines=[node(i) for i in range(nodes)]))
    world.submit(job(1, 2, queue="acme/vision/ann", estimate_s=100))
    world.submit(job(2, 1, queue="acme/nlp/bob", estimate_s=50))
    world.cycle()
    return world


def test_what_is_short_who_has_it_and_until_when() -> None:
    world = busy()
    assert why(world, job(3, 4, queue="acme/nlp/bob", estimate_s=60)) == Waiting(
        ask_id="j003",
        code="capacity",
        text="4 GPUs are needed, 1 is free. In use: 2 by acme/vision/ann, 1 by acme/nlp/bob.",
        place=1,
        starts_at_ms=NOW + 100_000,
    )
    second = why(world, job(4, 4, queue="acme/nlp/bob", estimate_s=60))
    assert (second.place, second.starts_at_ms) == (2, NOW + 160_000)


def test_places_are_counted_within_the_queue_and_class() -> None:
    world = busy()
    for number, urgency in ((5, 3), (6, 3), (7, 2)):
        world.submit(job(number, 4, queue="a", urgency=urgency))
    world.cycle()
    places = {ask: world.pool.explain(ask, NOW).place for ask in ("j005", "j006", "j007")}
    assert places == {"j007": 1, "j005": 2, "j006": 3}


def test_fragmented() -> None:
    world = World(Pool(machines=[node(0), node(1)]))
    for number, place in ((1, "n0"), (2, "n1")):
        run = running(job(number, 2, estimate_s=100), (place, (0, 1)))
        world.running[run.ask.id] = run
        world.pool.running(run)
    told = why(world, job(3, 3))
    assert told.code == "fragmented"
    assert told.text == (
        "62 CPUs and 4 GPUs (4 whole) are free, but together on no single machine. In use: 4 by a."
    )


def test_who_has_the_memory_that_is_short() -> None:
    machine = msgspec.structs.replace(node(0), memory_bytes=64 * GIB)
    world = World(Pool(machines=[machine]))
    for number, memory, queue in ((1, 40, "a"), (2, 8, "b")):
        need = Need(cpus_milli=500, memory_bytes=memory * GIB)
        world.submit(Ask(id=f"j00{number}", needs=(need,), queue=queue))
    world.cycle()
    told = why(world, Ask(id="j003", needs=(Need(cpus_milli=500, memory_bytes=32 * GIB),), queue="c"))
    assert told.code == "capacity"
    assert told.text == "32 GB of memory are needed, 16 GB are free. In use: 40 GB by a, 8 GB by b."


def test_two_candidates_of_which_the_first_is_too_large_for_ever() -> None:
    """The limit on the second is what it waits for."""
    world = World(Pool(tenancy(Queue(path="a", limit=gpus(2))), machines=[node(0), node(1)]))
    world.submit(job(1, 2, queue="a", estimate_s=100))
    world.cycle()
    large, small = Need(gpu_milli=8000, models=("B200",)), Need(gpu_milli=1000)
    told = why(world, Ask(id="x", needs=(large, small), queue="a", number=2))
    assert (told.code, told.text) == ("limit", "Queue a: 2 + 1 > 2 GPUs, over by 1.")


def test_reading_changes_nothing() -> None:
    """A pool that everybody looks at decides as one that nobody looks at."""
    for machines in (6, 60):
        dice, tree = random.Random(machines), tenancy(Queue(path="a", guaranteed=gpus(4)))
        read, silent = (World(Pool(tree, machines=[node(i) for i in range(machines)])) for _ in range(2))
        count = 3 * machines
        for number in range(count):
            ask = job(
                number, dice.choice((1, 2, 4)), nodes=dice.choice((1, 1, 2)), queue=dice.choice("abc"),
                estimate_s=dice.choice((50, 100, 5000)), preemptible=dice.random() < 0.5,
            )  # fmt: skip
            for world in (read, silent):
                world.submit(ask)
        for step in range(8):
            decisions = [world.cycle() for world in (read, silent)]
            assert decisions[0] == decisions[1], (machines, step)
            snapshot = PoolSnapshot(read.pool, read.now_ms)
            assert len(snapshot.pending) == len(read.waiting) and snapshot.usage
            for ask in snapshot.line[:20]:
                snapshot.explain(ask.id, read.now_ms + 5_000)
            for ask in list(read.running)[: machines // 3]:
                read.end(ask)
                silent.end(ask)
            read.now_ms = silent.now_ms = read.now_ms + 30_000


def test_a_limit() -> None:
    told = why(busy(Queue(path="acme/vision", limit=gpus(2))), job(3, 1, queue="acme/vision/eve"))
    assert (told.code, told.text) == ("limit", "Queue acme/vision: 2 + 1 > 2 GPUs, over by 1.")


def test_beyond_its_limit_for_ever() -> None:
    told = why(busy(Queue(path="acme/vision", limit=gpus(2))), job(3, 4, queue="acme/vision/eve"))
    assert told == Waiting(
        ask_id="j003",
        code="limit",
        text="It can never start: it asks for 4 GPUs, and queue acme/vision may use at most 2.",
    )


def test_what_others_keep() -> None:
    told = why(busy(Queue(path="acme/core", guaranteed=gpus(1))), job(3, 1, queue="acme/vision/eve"))
    assert told.code == "quota"
    assert told.text == "Queue acme/vision/eve asks for 1 GPU, 0 can be had; 1 more is kept for other queues."


def test_behind_a_reservation() -> None:
    world = busy()
    why(world, job(3, 4, queue="acme/nlp/bob", estimate_s=60))
    told = why(world, job(4, 1, queue="acme/nlp/bob", estimate_s=200))
    assert told.code == "order"
    assert told.text == (
        "There is room, but it is kept for acme/nlp/bob's job 3, which comes before it and starts in about "
        "1m 40s."
    )
    assert told.starts_at_ms == NOW + 160_000


def test_strict_order() -> None:
    world = busy(backfill="none")
    why(world, job(3, 4, queue="acme/nlp/bob"))
    told = why(world, job(4, 1, queue="acme/nlp/bob"))
    assert (told.code, told.text) == (
        "order",
        "There is room, but it is kept for acme/nlp/bob's job 3, which comes before it.",
    )


def test_never() -> None:
    told = why(busy(), job(3, 8))
    assert told.code == "never"
    assert (
        told.text
        == "It can never start: no machine has all that it needs. n0 comes nearest: 4 of 8 x device."
    )


def test_another_group() -> None:
    machine = msgspec.structs.replace(node(0), groups=("training",))
    world = World(Pool(machines=[machine, msgspec.structs.replace(node(1, 1), groups=("other",))]))
    need = Need(gpu_milli=1000, groups=("other",))
    world.submit(Ask(id="x", needs=(need,), queue="a", number=1))
    world.cycle()
    told = why(world, Ask(id="y", needs=(need,), queue="a", number=2))
    assert (told.code, told.text) == ("group", "There is room only outside of the groups that it may use.")


def test_another_tenant() -> None:
    world = World(Pool(machines=[node(0, 1)]))
    need = Need(gpu_milli=500, tenant="acme")
    world.submit(Ask(id="x", needs=(need,), queue="a", number=1))
    world.cycle()
    other = Need(gpu_milli=500, tenant="evil", isolation=Isolation.NONE)
    told = why(world, Ask(id="y", needs=(other,), queue="b", number=2))
    assert (told.code, told.text) == (
        "isolation",
        "The devices with room are shared with other tenants, or in another way.",
    )


def test_all_in_one_rack() -> None:
    machines = [msgspec.structs.replace(node(i), domains=("b", f"r{i // 2}")) for i in range(3)]
    world = World(Pool(machines=machines))
    run = running(job(1, 4), ("n0", (0, 1, 2, 3)))
    world.running[run.ask.id] = run
    world.pool.running(run)
    told = why(world, job(2, 4, nodes=2, required="rack"))
    assert (told.code, told.text) == (
        "topology",
        "It has 2 ranks, and at most 1 fit within one rack at present.",
    )
    told = why(world, job(3, 4, nodes=3, required="rack"))
    assert (told.code, told.text) == (
        "never",
        "It can never start: it has 3 ranks, and at most 2 fit within one rack.",
    )


def test_tried_again_later() -> None:
    told = why(busy(), job(3, 1, not_before_ms=NOW + 300_000))
    assert (told.code, told.text, told.starts_at_ms) == ("later", "It is tried again in 5m.", NOW + 300_000)


def test_room_is_being_made() -> None:
    world = World(Pool(machines=[node(0)]))
    for number in (1, 2):
        world.submit(job(number, 2, preemptible=True, urgency=4, queue="acme/ann"))
    world.cycle()
    world.now_ms += 10_000_000
    told = why(world, job(3, 4, queue="acme/ann", urgency=2))
    assert told.text == "Room is being made for it: acme/ann's job 1, acme/ann's job 2 are ending."
    world.leave("j002")
    told = world.pool.explain("j003", world.now_ms)
    assert told.text == "Room is being made for it: acme/ann's job 1 is ending."


def test_nothing_is_promised_where_nothing_is_known() -> None:
    world = World(Pool(machines=[node(0)]))
    world.submit(job(1, 4))
    world.cycle()
    assert why(world, job(2, 4, estimate_s=60)).starts_at_ms is None


def test_many_users_are_summed_up() -> None:
    users = {f"q{i}": 1000 * (10 - i) for i in range(6)}
    assert users_text(users, "gpus") == "In use: 10 by q0, 9 by q1, 8 by q2, 18 by 3 more."


@pytest.mark.parametrize(
    ("kind", "taker", "victim", "guaranteed", "text"),
    [
        ("reclaim", "acme/vision/ann", "acme/nlp", ("acme/vision/ann", {"gpus/A100": 8000}), "which is below its guarantee of 8 A100"),  # noqa: E501
        ("reclaim", "acme/vision/ann", "acme/nlp", ("acme", {"gpus": 1000, "memory": 1 << 30}), "which is below acme's guarantee of 1 GPU, 1 GB of memory"),  # noqa: E501
    ],
)  # fmt: skip
def test_why_it_had_to_go(
    kind: str, taker: str, victim: str, guaranteed: tuple[str, dict[str, int]], text: str
) -> None:
    told = why_evicted(job(12, queue=taker), job(3, queue=victim), kind, guaranteed=guaranteed)
    assert told == f"made room for {taker}'s job 12, {text}"


# --- how long


def test_the_guess_is_a_high_quantile_of_the_narrowest_kind() -> None:
    train = kinds_of(user="ann", name="train-7", gpu_milli=8000, project="vision")
    other = kinds_of(user="ann", name="eval", gpu_milli=8000, project="vision")
    history = History()
    assert estimate_s(history, train, urgency=3) == CLASS_DEFAULT_S[3]
    assert estimate_s(history, train, urgency=1) is None
    for runtime_s in range(100, 0, -1):
        history = remember(history, train, runtime_s)
    history = remember(history, other, 9000)
    assert estimate_s(history, train, urgency=3) == 18, "of the last 20"
    assert estimate_s(history, train, urgency=3, max_duration_s=10) == 10
    assert estimate_s(history, other, urgency=3) == 18, "one run says less than twenty of the same size"
    stranger = kinds_of(user="bob", name="train-7", gpu_milli=8000, project="vision")
    assert estimate_s(history, stranger, urgency=2, max_duration_s=60) == 60


def test_history_is_a_value() -> None:
    empty = History()
    remember(empty, ("a",), 1)
    assert empty == History()
    assert msgspec.json.decode(msgspec.json.encode(remember(empty, ("a",), 1)), type=History).runtimes_s == {
        "a": (1,)
    }


def test_who_overruns_is_reckoned_to_need_twice_as_long() -> None:
    ask = job(1, estimate_s=100)
    run = Running(
        ask=ask,
        placements=(Placement(rank=0, node_id="n0", devices=(DeviceShare(index=0, milli=1000),)),),
        started_ms=0,
    )
    assert [expected_end_ms(run, at * 1000) for at in (0, 99, 100, 150, 200, 900)] == [
        100_000, 100_000, 200_000, 200_000, 400_000, 1_600_000,
    ]  # fmt: skip
    service = msgspec.structs.replace(run, ask=job(1, urgency=1))
    assert expected_end_ms(service, 0) is None


def two_queues() -> World:
    """One place; a1 runs for another 2 s, and a2, then b1 wait for it."""
    world = World(Pool(machines=[node(0)]))
    world.submit(job(1, 4, queue="a", estimate_s=2))
    world.cycle()
    world.submit(job(2, 4, queue="a", estimate_s=2))
    world.submit(job(3, 4, queue="b", estimate_s=2))
    world.cycle()
    return world


def test_the_order_that_is_shown_is_the_order_of_the_starts() -> None:
    """Today queue a has more than b; when a1 has ended, it has not any more, and a2 came first."""
    world = two_queues()
    shown = PoolSnapshot(world.pool, world.now_ms)
    assert shown.positions == {"j002": 1, "j003": 2}
    assert shown.forecast(2) == {"j002": NOW + 2_000, "j003": NOW + 4_000}
    started = []
    for ended in ("j001", "j002"):
        world.now_ms += 2_000
        world.end(ended)
        started += [(start.ask_id, world.now_ms) for start in world.cycle().starts]
    assert started == list(shown.forecast(2).items())


@pytest.mark.parametrize("seed", range(20))
def test_who_is_shown_first_starts_first_and_at_that_time(seed: int) -> None:
    """Random pools of several queues whose jobs run as long as is expected."""
    dice = random.Random(seed)
    world = World(Pool(tenancy(attained_service=bool(seed % 2)), machines=[node(i) for i in range(3)]))
    for number in range(1, 25):
        world.submit(
            job(
                number,
                dice.choice([1, 2, 4]),
                dice.choice([1, 1, 2]),
                queue=dice.choice("abc"),
                estimate_s=dice.randint(1, 50),
                urgency=dice.choice([2, 3]),
            )
        )
    world.settle()
    shown = PoolSnapshot(world.pool, world.now_ms).forecast(4)
    assert len(shown) == 4
    order = [ask.id for ask in PoolSnapshot(world.pool, world.now_ms).line[:4]]
    started: dict[str, int] = {}
    while len(started) < 4:
        ends = world.pool.ends.next_ms()
        assert ends is not None
        world.now_ms = ends
        for run in list(world.running.values()):
            if run.started_ms + 1000 * (run.ask.estimate_s or 0) <= ends:
                world.end(run.ask.id)
        started |= {start.ask_id: world.now_ms for start in world.cycle().starts}
    assert shown == {id: at_ms for id, at_ms in started.items() if id in shown}
    assert set(order) <= started.keys()


def test_a_large_pool_shows_the_order_that_was_foreseen_last() -> None:
    """61 machines, a has 31 of them and b 30; when a1 ends, both have as many, and a came first."""
    cache = PoolCache(Tenancy(), "")
    cache.set_machines(node(i) for i in range(61))
    for number in range(1, 62):
        ask = job(number, 4, queue="a" if number < 32 else "b", estimate_s=2 if number == 1 else 1000)
        cache.set(ask.id, running(ask, (f"n{number - 1}", (0, 1, 2, 3)), started_ms=NOW))
    for number, queue in ((62, "a"), (63, "b")):
        cache.set(f"j{number:03}", job(number, 4, queue=queue, estimate_s=2))
    cache.cycle(NOW)
    today = cache.snapshot()
    assert today.positions == {"j063": 1, "j062": 2}
    cache.foresee()
    assert cache.snapshot().positions == {"j062": 1, "j063": 2}
    assert list(cache.expected.items()) == [("j062", NOW + 2_000), ("j063", NOW + 4_000)]
    kept = cache.snapshot()
    cache.foresee()
    assert cache.snapshot() is kept, "nothing has changed"


def test_the_order_behind_jobs_of_which_nothing_is_known_has_no_times() -> None:
    world = World(Pool(machines=[node(0)]))
    world.submit(job(1, 4, queue="a", estimate_s=2, guessed=True))
    world.cycle()
    world.submit(job(2, 4, queue="a", estimate_s=2))
    world.submit(job(3, 4, queue="b", estimate_s=2))
    world.cycle()
    shown = PoolSnapshot(world.pool, world.now_ms)
    assert shown.positions == {"j002": 1, "j003": 2}
    assert shown.forecast(2) == {}
    assert world.pool.explain("j003", world.now_ms).starts_at_ms is None


@pytest.mark.parametrize(
    ("preemptible", "told"),
    [
        (False, "it comes back when a job of a ends, as none there is `preemptible`"),
        (True, "a's job 1 may be ended for it in 4m, when it has run for the `min_runtime` of 5m"),
    ],
)
def test_what_a_queue_deserves_and_has_lent_says_when_it_comes_back(preemptible: bool, told: str) -> None:
    queues = (Queue(path="a", deserved={"cpus": 1000}), Queue(path="b", deserved={"cpus": 1000}))
    world = World(Pool(tenancy(*queues, min_runtime_s=300), machines=[node(0, 0, cpus=2)]))
    for number in (1, 2):
        world.submit(job(number, 0, queue="a", preemptible=preemptible))
    world.cycle()
    world.now_ms += 60_000
    world.submit(job(3, 0, queue="b/ann"))
    world.submit(job(4, 0, queue="a"))
    world.cycle()
    snapshot = PoolSnapshot(world.pool, world.now_ms)
    said = snapshot.explain("j003", world.now_ms)
    assert said.owed == f"queue `b` deserves it and has lent it: {told}"
    assert snapshot.explain("j004", world.now_ms).owed == "", "its own queue borrows already"
