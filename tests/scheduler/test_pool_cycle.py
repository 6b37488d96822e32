"""One cycle: order, classes that are skipped, quotas, restarts, and what each event costs."""

from __future__ import annotations

import sys

import pytest
from pool_world import World, gpus, job, node, running, tenancy

from argosy.model.errors import ArgosyError
from argosy.model.offer import DeviceShare
from argosy.model.tenancy import Queue
from argosy.scheduler.ask import Ask, Need
from argosy.scheduler.pool import Pool


def starts(world: World) -> list[str]:
    return [start.ask_id for start in world.cycle().starts]


def test_first_come_first_served_and_reasons() -> None:
    world = World(Pool(machines=[node(0)]))
    for number in (3, 1, 2):
        world.submit(job(number, 2))
    decision = world.cycle()
    assert [(s.ask_id, s.why) for s in decision.starts] == [
        ("j001", "it was next in queue a"),
        ("j002", "it was next in queue a"),
    ]
    world.end("j001")
    assert starts(world) == ["j003"]


def test_a_gang_starts_whole_or_not_at_all() -> None:
    world = World(Pool(machines=[node(0), node(1)]))
    world.submit(job(1, 4, nodes=3))
    assert starts(world) == []
    world.pool.put_machine(node(2))
    decision = world.cycle()
    assert [p.node_id for p in decision.starts[0].placements] == ["n0", "n1", "n2"]


def test_nothing_new_costs_a_comparison() -> None:
    world = World(Pool(machines=[node(0)]))
    for number in range(50):
        world.submit(job(number, 4))
    world.cycle()
    asked = 0
    find = world.pool.inventory.find

    def counted(*args: object, **more: object) -> object:
        nonlocal asked
        asked += 1
        return find(*args, **more)  # type: ignore[arg-type]

    world.pool.inventory.find = counted  # type: ignore[method-assign, assignment]
    assert starts(world) == []
    assert asked == 0
    world.submit(job(51, 4))  # one more of a class that is known not to fit
    assert starts(world) == []
    assert asked == 0
    world.submit(job(52, 3))  # another class
    assert starts(world) == []
    assert asked == 1
    world.end("j000")
    assert starts(world) == ["j001"]
    assert asked <= 4


def test_a_class_is_looked_at_again_when_its_machine_comes_back() -> None:
    world = World(Pool(machines=[node(0, open=False), node(1, gpus=2)]))
    world.submit(job(1, 4))
    world.submit(job(2, 2))
    assert starts(world) == ["j002"]
    world.pool.put_machine(node(0))
    assert starts(world) == ["j001"]


def test_several_candidates_in_their_order() -> None:
    wide, narrow = Need(gpu_milli=4000, models=("H100",)), Need(gpu_milli=2000, models=("A100",))
    world = World(Pool(machines=[node(0)]))
    world.submit(Ask(id="x", needs=(wide, narrow), queue="a"))
    decision = world.cycle()
    assert len(decision.starts[0].placements[0].devices) == 2


def test_limits_of_single_models() -> None:
    queues = (Queue(path="a", limit={"gpus/A100": 2000}),)
    world = World(Pool(tenancy(*queues), machines=[node(0), node(1, model="H100")]))
    for number in range(5):
        world.submit(job(number, 2))  # of any model
    assert starts(world) == ["j000", "j001", "j002"]
    assert world.pool.quotas.used("a") == {
        "cpus": 3000,
        "gpus": 6000,
        "jobs": 3,
        "gpus/A100": 2000,
        "gpus/H100": 4000,
    }


def test_a_limit_on_one_model_leaves_a_request_of_any_model_whole() -> None:
    """A gang of two goes to one A100 and one H100: neither model alone has two machines that it may use."""
    queues = (Queue(path="a", limit={"gpus/H100": 1000}), Queue(path="b", limit={"gpus/H100": 4000}))
    machines = [node(0, 1, model="H100"), node(1, 1), node(2, 1, model="H100")]
    world = World(Pool(tenancy(*queues), machines=machines))
    world.submit(job(1, 1, 2, queue="a"))
    assert starts(world) == ["j001"]
    assert "n1" in {place.node_id for place in world.running["j001"].placements}
    used = world.pool.quotas.used("a")
    assert (used["gpus"], used["gpus/A100"], used["gpus/H100"]) == (2000, 1000, 1000)
    world.submit(job(2, 1, queue="a"))  # only an H100 is left
    world.submit(job(3, 1, queue="b"))
    assert starts(world) == ["j003"]


def test_a_limit_on_one_model_caps_a_part_of_a_gang() -> None:
    """Six ranks of one queue, of which two may use an H100."""
    machines = [node(0, 4, model="H100", cpus=4), node(1, 4, cpus=64)]
    world = World(Pool(tenancy(Queue(path="a", limit={"gpus/H100": 2000})), machines=machines))
    world.submit(job(1, 1, 6, queue="a"))
    world.submit(job(2, 1, 1, queue="a"))
    assert starts(world) == ["j001"]
    used = world.pool.quotas.used("a")
    assert (used["gpus"], used["gpus/H100"], used["gpus/A100"]) == (6000, 2000, 4000)


def test_limits_hold_back_a_queue_and_nobody_else() -> None:
    world = World(Pool(tenancy(Queue(path="a", limit=gpus(2)), backfill="none"), machines=[node(0)]))
    for number in range(4):
        world.submit(job(number))
    world.submit(job(9, queue="b"))
    assert sorted(starts(world)) == ["j000", "j001", "j009"]


def test_not_before() -> None:
    world = World(Pool(machines=[node(0)]))
    world.submit(job(1, not_before_ms=world.now_ms + 5000))
    decision = world.cycle()
    assert (decision.starts, decision.wake_ms) == ((), world.now_ms + 5000)
    world.now_ms += 5000
    assert starts(world) == ["j001"]


def test_withdrawn_and_replaced() -> None:
    world = World(Pool(machines=[node(0)]))
    world.submit(job(1, 4))
    world.submit(job(2, 4))
    world.pool.withdraw("j001")
    world.pool.withdraw("j001")
    del world.waiting["j001"]
    world.submit(job(2, 2))
    decision = world.cycle()
    assert [len(s.placements[0].devices) for s in decision.starts] == [2]


def test_events_may_come_twice() -> None:
    world = World(Pool(machines=[node(0)]))
    ask = job(1, 4)
    world.submit(ask)
    world.submit(ask)
    world.cycle()
    run = world.running["j001"]
    world.pool.running(run)
    world.pool.running(run)
    world.pool.submit(ask)  # an echo of what runs by now
    assert starts(world) == []
    world.end("j001")
    world.pool.ended("j001")
    assert world.pool.quotas.used("a") == {}
    assert world.pool.inventory.free()["gpus"] == 4000


def test_what_others_started_is_taken_as_it_is() -> None:
    world = World(Pool(machines=[node(0)]))
    ask = job(1, 2)
    world.running[ask.id] = running(ask, ("n0", (1, 2)))
    world.pool.running(world.running[ask.id])
    world.submit(job(2, 2))
    decision = world.cycle()
    assert decision.starts[0].placements[0].devices == (
        DeviceShare(index=0, milli=1000),
        DeviceShare(index=3, milli=1000),
    )


def test_a_machine_is_lost_under_a_gang() -> None:
    world = World(Pool(machines=[node(0), node(1)]))
    world.submit(job(1, 4, nodes=2))
    world.cycle()
    pool = world.rebuilt()
    pool.drop_machine("n1")
    again = Pool(machines=[node(0)])
    again.running(world.running["j001"])
    for each in (pool, again):
        each.submit(job(2, 1))
        assert each.cycle(world.now_ms).starts == (), "what is left of the gang still holds n0"
        each.ended("j001")
        each.put_machine(node(1))
        each.submit(job(3, 4, nodes=1))
        assert [s.ask_id for s in each.cycle(world.now_ms).starts] == ["j002", "j003"]


def test_another_tree_takes_the_books_along() -> None:
    world = World(Pool(machines=[node(0)]))
    for number in range(4):
        world.submit(job(number, queue="a" if number % 2 else "b"))
    world.cycle()
    world.pool.set_tenancy(tenancy(Queue(path="a", limit=gpus(2))))
    world.end("j000")
    world.submit(job(5))
    world.submit(job(6, queue="b"))
    assert starts(world) == ["j006"]


def test_small_pools_do_without_numpy() -> None:
    import subprocess

    script = (
        "import sys; sys.path.insert(0, 'tests/scheduler')\n"
        "from pool_world import World, job, node\n"
        "from argosy.scheduler.pool import Pool\n"
        "world = World(Pool(machines=[node(0)])); world.submit(job(1)); world.submit(job(2, 4, "
        "estimate_s=60)); world.cycle()\n"
        "world.submit(job(3)); world.cycle(); world.pool.explain('j002', world.now_ms)\n"
        "assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_unknown_ids_are_said() -> None:
    with pytest.raises(ArgosyError, match="nothing with the id j1 waits"):
        Pool().explain("j1", 0)


def test_the_line_is_the_order_of_a_cycle() -> None:
    world = World(Pool(machines=[node(0)]))
    for number in range(6):
        world.submit(job(number, 4, queue="ab"[number % 2], urgency=2 if number == 5 else 3))
    line = [ask.id for ask in world.pool.line(world.now_ms)]
    assert line[0] == "j005"
    started = []
    while world.waiting:
        started += starts(world)
        world.end(started[-1])
    assert started == line
