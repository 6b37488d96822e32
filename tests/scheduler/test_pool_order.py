"""Who is next: priority, the tournament down the tree, places in a leaf; the same as a naive search, and
fair."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from argosy.model.tenancy import Queue, SharePolicy, Tenancy
from argosy.scheduler.ask import Ask, Need
from argosy.scheduler.order import Order, bucket_of, class_of, next_bucket, place_of
from argosy.scheduler.quota import Quotas, amounts_of

G = 1000
HOUR = 1000 * 3_600_000
POLICY = SharePolicy()


def ask(job_id: str, queue: str = "a/u", gpus: int = 1, **fields: object) -> Ask:
    fields.setdefault("number", int("".join(c for c in job_id if c.isdigit()) or 0))
    return Ask(id=job_id, queue=queue, needs=(Need(gpu_milli=gpus * G),), **fields)  # type: ignore[arg-type]


def books(*queues: Queue, gpus: int = 100) -> Quotas:
    return Quotas(Tenancy(queues=queues), {"gpus": gpus * G})


def waiting(*asks: Ask) -> Order:
    order = Order()
    for each in asks:
        order.add(each)
    return order


def sequence(order: Order, quotas: Quotas, policy: SharePolicy = POLICY, now_ms: int = 0) -> list[str]:
    """Everybody starts."""
    result = []
    heads = order.heads(quotas, policy, now_ms)
    for head in heads:
        quotas.charge(head.id, head.queue, amounts_of(head.needs[0], head.num_nodes))
        heads.started(head)
        result.append(head.id)
    return result


def test_class_then_priority_then_time_then_number_then_id() -> None:
    order = waiting(
        ask("j1", urgency=4, priority=9),
        ask("j2", submitted_ms=5),
        ask("j3", submitted_ms=4, number=8),
        ask("j4", submitted_ms=4, number=7),
        ask("j6", submitted_ms=4, number=7),
        ask("j5", submitted_ms=9, priority=1),
        ask("j7", urgency=0, submitted_ms=99),
    )
    assert sequence(order, books()) == ["j7", "j5", "j4", "j6", "j3", "j2", "j1"]
    assert len(order) == 0


def test_down_the_tree_the_smallest_share_with_the_candidate_started_goes_first() -> None:
    quotas = books(Queue(path="a", deserved={"gpus": 2 * G}))
    order = waiting(*(ask(f"j{n}", "a/u" if n < 6 else "b/u", submitted_ms=n) for n in range(10)))
    # a deserves two; then both borrow by turns, the earlier first when they are even
    assert sequence(order, quotas) == ["j0", "j1", "j2", "j6", "j3", "j7", "j4", "j8", "j5", "j9"]


def test_a_large_candidate_waits_for_a_small_one_of_another_queue() -> None:
    order = waiting(ask("j1", "a/u", 8), ask("j2", "b/u", 1), ask("j3", "b/u", 1))
    assert sequence(order, books()) == ["j2", "j3", "j1"]


def test_what_is_guaranteed_goes_before_what_is_borrowed() -> None:
    quotas = books(Queue(path="g", guaranteed={"gpus": 4 * G}), Queue(path="d", deserved={"gpus": 4 * G}))
    order = waiting(ask("j1", "d/u", 4), ask("j2", "g/u", 4, submitted_ms=9))
    assert sequence(order, quotas) == ["j2", "j1"]


def test_waiting_raises_by_one_class_at_most_and_never_to_system() -> None:
    policy = SharePolicy(aging_s=100)
    old = ask("j1", urgency=3)
    assert [class_of(old, policy, now_ms) for now_ms in (0, 99_999, 100_000, 10**9)] == [3, 3, 2, 2]
    assert class_of(ask("j2", urgency=1), policy, 10**9) == 1
    order = waiting(old, ask("j3", urgency=2, submitted_ms=50_000), ask("j4", urgency=2, submitted_ms=10))
    assert order.next_ms() is not None
    assert sequence(order, books(), policy, 60_000) == ["j4", "j3", "j1"]
    order = waiting(old, ask("j3", urgency=2, submitted_ms=50_000), ask("j4", urgency=2, submitted_ms=10))
    list(order.heads(books(), policy, 0))
    assert order.next_ms() == 100_000
    assert sequence(order, books(), policy, 100_000) == ["j1", "j4", "j3"]


def test_attained_service_counts_for_batch_jobs_with_checkpoints_when_the_policy_says_so() -> None:
    served = [
        ask("j1", submitted_ms=1, attained=9 * HOUR, checkpoint=True),
        ask("j2", submitted_ms=2, attained=2 * HOUR, checkpoint=True),
        ask("j3", submitted_ms=3, checkpoint=True),
        ask("j4", submitted_ms=4, attained=9 * HOUR),
    ]
    assert sequence(waiting(*served), books()) == ["j1", "j2", "j3", "j4"]
    policy = SharePolicy(attained_service=True)
    assert sequence(waiting(*served), books(), policy) == ["j3", "j4", "j2", "j1"]
    sessions = [replace(each, urgency=2) for each in served]
    assert sequence(waiting(*sessions), books(), policy) == ["j1", "j2", "j3", "j4"]


def test_buckets_grow_by_eights() -> None:
    assert [bucket_of(hours * HOUR) for hours in (0, 1, 7, 8, 63, 64)] == [0, 1, 1, 2, 2, 3]
    assert bucket_of(HOUR - 1) == 0
    for attained in (0, HOUR - 1, HOUR, 8 * HOUR + 5):
        more = next_bucket(attained)
        assert bucket_of(attained + more - 1) == bucket_of(attained) < bucket_of(attained + more)


def test_who_was_evicted_has_its_place_again() -> None:
    quotas, order = books(gpus=1), waiting(*(ask(f"j{n}", submitted_ms=n) for n in range(3)))
    heads = order.heads(quotas, POLICY, 0)
    first = next(heads)
    quotas.charge(first.id, first.queue, {"gpus": G})
    heads.started(first)
    quotas.refund(first.id)
    order.add(replace(first, attained=99))
    assert [each.id for each in order.heads(quotas, POLICY, 10)] == ["j0", "j1", "j2"]


def test_some_may_not_start_before_a_time() -> None:
    order = waiting(ask("j1", not_before_ms=500), ask("j2"))
    assert (len(order), order.waiting("a"), "j1" in order) == (2, 2, True)
    assert [each.id for each in order.heads(books(), POLICY, 499)] == ["j2"]
    assert order.next_ms() == 500
    assert [each.id for each in order.heads(books(), POLICY, 500)] == ["j1", "j2"]
    order.remove("j1")
    order.remove("j2")
    order.remove("j2")
    assert (len(order), order.waiting("a"), list(order.classes())) == (0, 0, [])


def test_answers_of_the_caller() -> None:
    def offered(answer: Callable[..., None] | None) -> list[str]:
        order = waiting(
            ask("j1"), ask("j2"), ask("j3", gpus=2), ask("j4", "b/u"), ask("j5", "b/u", 2, submitted_ms=1)
        )
        heads = order.heads(books(), POLICY, 0)
        result = []
        for head in heads:
            result.append(head.id)
            if answer is not None and head.id == "j1":
                answer(heads, head)
        return result

    assert offered(None) == ["j1", "j2", "j4", "j3", "j5"]
    assert offered(lambda heads, head: heads.skip_class(head)) == ["j1", "j3", "j5"]
    assert offered(lambda heads, head: heads.skip_class(head, but={"b/u"})) == ["j1", "j4", "j3", "j5"]
    assert offered(lambda heads, head: heads.skip_class(head, but={"a/u"})) == ["j1", "j3", "j5"]
    assert offered(lambda heads, head: heads.skip_here(head)) == ["j1", "j4", "j3", "j5"]
    assert offered(lambda heads, head: heads.close(head)) == ["j1", "j4", "j5"]


def test_shares_follow_what_happens_during_a_pass() -> None:
    quotas = books()
    quotas.charge("big", "a/u", {"gpus": 10 * G})
    order = waiting(ask("j1", "a/u"), ask("j2", "b/u"), ask("j3", "b/u"))
    heads = order.heads(quotas, POLICY, 0)
    assert next(heads).id == "j2"
    quotas.charge("more", "b/u", {"gpus": 20 * G})
    assert next(heads).id == "j1"
    quotas.refund("more")
    assert next(heads).id == "j3"


def test_what_waits_is_counted_by_class_and_by_queue() -> None:
    order = waiting(ask("j1"), ask("j2"), ask("j3", "a/v", 2), ask("j4", "a/v", 2, urgency=1))
    assert [(example.id, count) for _, example, count in order.classes()] == [("j1", 2), ("j3", 2)]
    assert order.wanted() == {"a/u": {"jobs": 2, "gpus": 2 * G}, "a/v": {"jobs": 2, "gpus": 4 * G}}
    assert (order.waiting(), order.waiting("a"), order.waiting("a/v"), order.waiting("b")) == (4, 4, 2, 0)
    order.add(ask("j1", "b/u"))
    assert (order.waiting("a/u"), order.waiting("b/u")) == (1, 1)


# --- properties


PATHS = ("a/x/u", "a/x/v", "a/y/u", "b/u", "b/v", "c")
QUEUES = (
    Queue(path="a", deserved={"gpus": 4 * G}, weight_milli=2000),
    Queue(path="a/x", guaranteed={"gpus": 2 * G}),
    Queue(path="b", deserved={"gpus": 2 * G}),
    Queue(path="b/v", weight_milli=3000),
)
asks_of = st.lists(
    st.builds(
        lambda path, gpus, cpus, urgency, priority, at, attained: Ask(
            id="",
            queue=path,
            needs=(Need(gpu_milli=gpus * G, cpus_milli=cpus * G),),
            urgency=urgency,
            priority=priority,
            submitted_ms=at,
            attained=attained * HOUR,
            checkpoint=attained > 0,
        ),
        st.sampled_from(PATHS),
        st.integers(0, 3),
        st.integers(1, 2),
        st.sampled_from([1, 3, 3, 3, 4]),
        st.sampled_from([0, 0, 5]),
        st.integers(0, 40),
        st.sampled_from([0, 2, 9]),
    ),
    max_size=24,
).map(lambda asks: [replace(each, id=f"j{n:02}", number=n % 5) for n, each in enumerate(asks)])


def naive_next(asks: Iterable[Ask], quotas: Quotas, policy: SharePolicy, now_ms: int) -> Ask | None:
    """The definition, word by word: everything is compared anew."""
    asks = list(asks)
    if not asks:
        return None
    best = min(class_of(each, policy, now_ms) for each in asks)
    rest = [each for each in asks if class_of(each, policy, now_ms) == best]

    def winner(path: str) -> Ask | None:
        below: dict[str, list[Ask]] = {}
        for each in rest:
            if each.queue == path:
                below.setdefault(path, []).append(each)
            elif not path or each.queue.startswith(f"{path}/"):
                depth = path.count("/") + 2 if path else 1
                below.setdefault("/".join(each.queue.split("/")[:depth]), []).append(each)
        if set(below) == {path}:
            return min(below[path], key=lambda each: place_of(each, policy, now_ms))
        candidates = {child: found for child in below if (found := winner(child)) is not None}
        if not candidates:
            return None

        def rank(child: str) -> object:
            found = candidates[child]
            amounts = amounts_of(found.needs[0], found.num_nodes)
            kept = quotas.below_guarantee(found.queue, amounts)
            return (not kept, quotas.key(child, amounts), place_of(found, policy, now_ms))

        return candidates[min(candidates, key=rank)]

    return winner("")


def test_what_a_queue_keeps_is_kept_for_none_of_its_leaves_when_one_has_taken_it() -> None:
    """A start in one leaf changes what the others may have without borrowing."""
    quotas = Quotas(Tenancy(queues=QUEUES), {"gpus": 12 * G, "cpus": 30 * G})
    quotas.charge("held", "a/x/u", {"gpus": 1 * G, "jobs": 1})
    asks = [
        Ask(
            id=f"{path[-1]}{gpus}{cpus}",
            queue=path,
            needs=(Need(gpu_milli=gpus * G, cpus_milli=cpus * G),),
            number=at,
        )
        for at, (path, gpus, cpus) in enumerate((("a/x/u", 1, 9), ("a/x/v", 1, 1), ("a/x/v", 0, 2)))
    ]
    left = {each.id: each for each in asks}
    heads = waiting(*asks).heads(quotas, SharePolicy(), 0)
    for head in heads:
        expected = naive_next(left.values(), quotas, SharePolicy(), 0)
        assert expected is not None and head.id == expected.id
        del left[head.id]
        quotas.charge(head.id, head.queue, amounts_of(head.needs[0], 1))
        heads.started(head)
    assert not left


@given(asks_of, st.booleans(), st.integers(0, 60), st.randoms(use_true_random=False))
def test_a_pass_offers_what_the_definition_says(
    asks: list[Ask], attained: bool, now_ms: int, dice: random.Random
) -> None:
    """Whatever is answered: starts, classes and leaves that are blocked, asks that are passed over."""
    policy = SharePolicy(attained_service=attained, aging_s=0 if now_ms % 2 else 1)
    quotas = Quotas(Tenancy(queues=QUEUES), {"gpus": 12 * G, "cpus": 30 * G})
    for path in PATHS:
        quotas.tree.leaf(path)
    shuffled = list(asks)
    dice.shuffle(shuffled)
    order = waiting(*shuffled)
    left = {each.id: each for each in asks}
    heads = order.heads(quotas, policy, now_ms)
    for head in heads:
        expected = naive_next(left.values(), quotas, policy, now_ms)
        assert expected is not None and head.id == expected.id
        answer = dice.randrange(6)
        del left[head.id]
        if answer == 0:
            heads.skip_class(head)
            left = {each.id: each for each in left.values() if each.needs != head.needs}
        elif answer == 5:
            but = {each.queue for each in left.values() if each.needs == head.needs and dice.randrange(2)}
            heads.skip_class(head, but=but)
            but.discard(head.queue)
            left = {k: v for k, v in left.items() if v.needs != head.needs or v.queue in but}
        elif answer == 1:
            heads.skip_here(head)
            left = {k: v for k, v in left.items() if (v.needs, v.queue) != (head.needs, head.queue)}
        elif answer == 2:
            heads.close(head)
            left = {k: v for k, v in left.items() if v.queue != head.queue}
        elif answer == 3:
            quotas.charge(head.id, head.queue, amounts_of(head.needs[0], 1))
            heads.started(head)
        if dice.randrange(6) == 0:  # many classes at once, perhaps all
            some = {each.needs: each for each in left.values() if dice.randrange(4)}
            spared = {
                needs: {each.queue for each in left.values() if each.needs == needs and not dice.randrange(3)}
                for needs in some
            }
            heads.skip_classes({order.shape(each): spared[needs] for needs, each in some.items()})
            left = {k: v for k, v in left.items() if v.needs not in some or v.queue in spared[v.needs]}
    assert not left


@given(asks_of, st.permutations(range(24)), st.integers(0, 100))
def test_the_same_asks_give_the_same_order_however_they_came(
    asks: list[Ask], turn: list[int], now_ms: int
) -> None:
    """Law 10: the order of adding is no matter, nor what was added and removed again, nor when one looked
    before."""
    policy = SharePolicy(aging_s=0)
    straight = Order()
    for each in asks:
        straight.add(each)
    crooked = Order()
    for place in turn:
        if place < len(asks):
            crooked.add(replace(asks[place], queue="z/w", urgency=2))
            crooked.add(asks[place])
            crooked.add(ask(f"x{place}"))
    list(crooked.heads(books(*QUEUES), SharePolicy(), now_ms // 2))
    for place in turn:
        crooked.remove(f"x{place}")
    assert sequence(straight, books(*QUEUES), policy, now_ms) == sequence(
        crooked, books(*QUEUES), policy, now_ms
    )


@given(asks_of, st.sets(st.integers(0, 7)))
def test_classes_that_are_known_to_be_blocked_are_as_if_found_out(asks: list[Ask], blocked: set[int]) -> None:
    """Law 11: skipping changes no decision."""
    one, two = waiting(*asks), waiting(*asks)
    quotas, others = books(*QUEUES), books(*QUEUES)
    told = []
    heads = one.heads(quotas, POLICY, 0, blocked=blocked)
    for head in heads:
        told.append(head.id)
        quotas.charge(head.id, head.queue, amounts_of(head.needs[0], 1))
        heads.started(head)
    found = []
    heads = two.heads(others, POLICY, 0)
    for head in heads:
        if two.shape(head) in blocked:
            heads.skip_class(head)
            continue
        found.append(head.id)
        others.charge(head.id, head.queue, amounts_of(head.needs[0], 1))
        heads.started(head)
    assert told == found


@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.lists(st.integers(0, 3), min_size=5, max_size=5),
    st.integers(5, 60),
    st.randoms(use_true_random=False),
)
def test_equal_siblings_that_always_wait_borrow_alike(
    tops: int, leaves: int, deserved: list[int], gpus: int, dice: random.Random
) -> None:
    """Law 8: with identical unit jobs the borrowed amounts of equal siblings differ by one job at most, also
    after jobs end."""
    queues = [Queue(path=f"q{n}", deserved={"gpus": deserved[n] * G}) for n in range(tops)]
    quotas = books(*queues, gpus=max(gpus, sum(deserved[:tops])))
    order = waiting(*(ask(f"j{n}", f"q{n % tops}/u{n // tops % leaves}") for n in range(tops * leaves * 70)))

    def fill() -> None:
        heads = order.heads(quotas, POLICY, 0)
        for head in heads:
            if quotas.lends(head.queue, {"gpus": G}):
                quotas.charge(head.id, head.queue, {"gpus": G, "jobs": 1})
                heads.started(head)
            else:
                heads.skip_class(head)

    def spread(*paths: str) -> int:
        amounts = [quotas.used(path).get("gpus", 0) // G for path in paths]
        return max(amounts) - min(amounts)

    fill()
    users = [[f"q{n}/u{leaf}" for leaf in range(leaves)] for n in range(tops)]
    assert all(spread(*inside) <= 1 for inside in users)
    for _ in range(3):
        running = sorted(each for each in quotas._held)
        for job in dice.sample(running, k=min(len(running), 4 * tops)):
            quotas.refund(job)
        fill()
    borrowed = [quotas.used(f"q{n}").get("gpus", 0) // G - deserved[n] for n in range(tops)]
    assert max(borrowed) - min(borrowed) <= 1 or tops == 1
    assert all(spread(*inside) <= 2 for inside in users)  # what its queue lost to another one counts, too


@pytest.mark.parametrize("gpus", [9, 30, 31, 32, 90])
def test_twice_the_weight_borrows_twice_as_much(gpus: int) -> None:
    quotas = books(Queue(path="a", weight_milli=2000), gpus=gpus)
    order = waiting(*(ask(f"j{n}", f"{'ab'[n % 2]}/u") for n in range(200)))
    heads = order.heads(quotas, POLICY, 0)
    for head in heads:
        if quotas.lends(head.queue, {"gpus": G}):
            quotas.charge(head.id, head.queue, {"gpus": G, "jobs": 1})
            heads.started(head)
        else:
            heads.skip_class(head)
    a, b = (quotas.used(path)["gpus"] // G for path in "ab")
    assert a + b == gpus
    assert abs(a - 2 * gpus / 3) <= 1 and abs(b - gpus / 3) <= 1
