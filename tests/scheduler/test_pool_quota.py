"""The tree of queues: what is refused, what is lent, whose share is larger, who must give back, and that it
all ends."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.model.errors import ArgosyError
from argosy.model.facts import Device
from argosy.model.resources import Resources
from argosy.model.tenancy import Amounts, Group, Preset, Queue, SharePolicy, Tenancy
from argosy.scheduler.ask import Ask, Machine, Need
from argosy.scheduler.fair import by_weight, divide, fair_shares
from argosy.scheduler.pool import Pool
from argosy.scheduler.quota import Quotas, amounts_of, check_tenancy, leaf_of
from argosy.scheduler.reclaim import givers, may_reclaim, may_reclaim_all

G = 1000


def gpus(count: int) -> Amounts:
    return {"gpus": count * G, "jobs": 1}


def books(*queues: Queue, capacity: int = 32, owner: str = "") -> Quotas:
    tenancy = Tenancy(queues=queues)
    check_tenancy(tenancy)
    return Quotas(tenancy, {"gpus": capacity * G}, owner=owner)


# --- what is refused


def queue(path: str, **amounts: object) -> Queue:
    """Amounts in GPUs."""
    fields = {key: {"gpus": value * G} if isinstance(value, int) else value for key, value in amounts.items()}
    return Queue(path=path, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tenancy", "what", "hint"),
    [
        (
            (queue("acme", guaranteed=8), queue("acme/a", guaranteed=6), queue("acme/b/x", guaranteed=4)),
            "queue acme: its children are guaranteed 10 GPUs, it is itself guaranteed 8",
            "raise guaranteed of acme, or lower guaranteed of its children",
        ),
        (
            (queue("acme", limit=8), queue("acme/a", guaranteed=10)),
            "queue acme: its children are guaranteed 10 GPUs, it may use 8",
            "raise limit of acme, or lower guaranteed of its children",
        ),
        (
            (queue("a", guaranteed=8, deserved=4),),
            "queue a: guaranteed 8 GPUs is more than deserved 4 GPUs",
            "raise deserved, or lower guaranteed",
        ),
        (
            (queue("a", deserved={"memory": 3 << 30}, limit={"memory": 1 << 30}),),
            "queue a: deserved 3 GB of memory is more than limit 1 GB of memory",
            "raise limit, or lower deserved",
        ),
        (
            (queue("a", limit={"gpu": 1}),),
            "queue a: limit names `gpu`, which nothing is counted by",
            "did you mean `gpus`?",
        ),
        (
            (queue("a", limit={"licences": 1}),),
            "queue a: limit names `licences`, which nothing is counted by",
            "write cpus, memory, gpus, gpus/MODEL or jobs",
        ),
        ((queue("a"), queue("a")), "queue a is there twice", "keep one of them"),
        ((queue("a", limit=-1),), "queue a: limit of gpus is -1000, below 0", "amounts are 0 or more"),
        (
            (queue("a", deserved=4, lend_limit=5),),
            "queue a: lend_limit 5 GPUs is more than deserved 4 GPUs",
            "raise deserved, or lower lend_limit",
        ),
        (
            (Queue(path="a", weight_milli=0),),
            "queue a: weight 0 is not above 0",
            "1 is what a queue has by default",
        ),
        (
            (queue("a", guaranteed={"jobs": 2}),),
            "queue a: jobs cannot be guaranteed",
            "jobs can only have a `limit`",
        ),
        (
            (Queue(path="a//b"),),
            "`a//b` is not a path of a queue",
            "write names with `/` between them: acme/vision/ann; letters, digits and ._@+- only",
        ),
        (
            (queue("a", deserved={"gpus": 4 * G, "gpus/A100": 5 * G}),),
            "queue a: deserved of single models is 5 GPUs, more than 4 GPUs in all",
            "raise `gpus`, or leave it out: it is then their sum",
        ),
    ],
)
def test_queues_that_contradict_themselves_are_refused(
    tenancy: tuple[Queue, ...], what: str, hint: str
) -> None:
    with pytest.raises(ArgosyError) as refused:
        check_tenancy(Tenancy(queues=tenancy))
    assert (refused.value.code, refused.value.what, refused.value.hint) == ("spec-invalid", what, hint)


@pytest.mark.parametrize(
    ("tenancy", "what", "hint"),
    [
        (
            Tenancy(queues=(Queue(path="acme/vision"),), groups=(Group(name="t", queues=("acme/vison",)),)),
            "group t: there is no queue acme/vison",
            "did you mean `acme/vision`?",
        ),
        (
            Tenancy(groups=(Group(name="t", kinds=("jobs",)),)),
            "group t: there is no kind of workload `jobs`",
            "did you mean `job`?",
        ),
        (Tenancy(groups=(Group(name="t"), Group(name="t"))), "group t is there twice", "keep one of them"),
        (
            Tenancy(presets=(Preset(name="small", resources=Resources()),) * 2),
            "preset small is there twice",
            "keep one of them",
        ),
        (
            Tenancy(policy=SharePolicy(backfill="eazy")),
            "policy: there is no backfill `eazy`",
            "did you mean `easy`?",
        ),
        (
            Tenancy(policy=SharePolicy(half_life_s=0)),
            "policy: half_life_s 0 is not above 0",
            "7 days are the default",
        ),
    ],
)
def test_groups_presets_and_policy_are_checked(tenancy: Tenancy, what: str, hint: str) -> None:
    with pytest.raises(ArgosyError) as refused:
        check_tenancy(tenancy)
    assert (refused.value.what, refused.value.hint) == (what, hint)


def test_all_faults_are_told_at_once_and_groups_may_name_inner_queues() -> None:
    with pytest.raises(ArgosyError) as refused:
        check_tenancy(Tenancy(queues=(Queue(path="a", weight_milli=-1), queue("b", limit=-2))))
    assert refused.value.details == ("queue b: limit of gpus is -2000, below 0",)
    check_tenancy(Tenancy(queues=(Queue(path="acme/vision"),), groups=(Group(name="t", queues=("acme",)),)))


# --- which leaf


TREE = Tenancy(queues=(Queue(path="acme/vision"), Queue(path="acme/nlp/bob"), Queue(path="beta/nlp")))


@pytest.mark.parametrize(
    ("project", "user", "wanted", "leaf"),
    [
        ("default", "ann", "", "default/ann"),
        ("", "", "", "default/nobody"),
        ("vision", "ann", "", "acme/vision/ann"),
        ("nlp", "bob", "acme/nlp/bob", "acme/nlp/bob"),
        ("vision", "bob", "acme/nlp", "acme/nlp/bob"),
        ("nlp", "ann", "acme/nlp/bob", "acme/nlp/bob/ann"),  # names are told, not proved
        ("vision", "ann", "acme/vision/ann", "acme/vision/ann"),
        ("vision", "a/b c", "", "acme/vision/a-b-c"),
        ("x", "ann", "x/ann", "x/ann"),
    ],
)
def test_a_workload_counts_in_the_leaf_of_its_user(project: str, user: str, wanted: str, leaf: str) -> None:
    assert leaf_of(TREE, project, user, wanted) == leaf


def test_unknown_and_ambiguous_queues_are_refused_with_a_hint() -> None:
    with pytest.raises(ArgosyError, match="there is no queue acme/visoin") as refused:
        leaf_of(TREE, "vision", "ann", "acme/visoin")
    assert refused.value.hint == "did you mean `acme/vision`?"
    with pytest.raises(ArgosyError, match="project nlp has several queues: acme/nlp, beta/nlp"):
        leaf_of(TREE, "nlp", "ann")


def test_what_a_gang_counts() -> None:
    need = Need(cpus_milli=4000, memory_bytes=10, gpu_milli=2000, models=("A100",))
    assert amounts_of(need, 3) == {"jobs": 1, "cpus": 12000, "memory": 30, "gpus": 6000, "gpus/A100": 6000}
    either = Need(gpu_milli=250, models=("A100", "H100"))
    assert amounts_of(either, 1) == {"jobs": 1, "gpus": 250}
    assert amounts_of(either, 1, "H100") == {"jobs": 1, "gpus": 250, "gpus/H100": 250}


# --- limits and lending


def test_the_first_limit_on_the_way_up_is_named() -> None:
    quotas = books(queue("acme", limit=30), queue("acme/vision", limit=32 - 2))
    quotas.charge("j1", "acme/vision/ann", gpus(26))
    over = quotas.over("acme/vision/bob", gpus(8))
    assert over is not None
    assert over.render() == "queue acme/vision: 26 + 8 > 30 GPUs, over by 4"
    assert quotas.over("acme/vision/bob", gpus(4)) is None
    over = quotas.over("acme/nlp/eve", gpus(5))
    assert over is not None
    assert over.path == "acme"


def test_amounts_read_as_people_write_them() -> None:
    limits = {"memory": 32 << 30, "jobs": 2, "cpus": 500, "gpus/A100": 250}
    quotas = books(Queue(path="a", limit=limits))
    over = quotas.over("a/u", {"memory": 33 << 30})
    assert over is not None and over.render() == "queue a: 0 B + 33 GB > 32 GB of memory, over by 1 GB"
    over = quotas.over("a/u", {"cpus": 750})
    assert over is not None and over.render() == "queue a: 0 + 0.75 > 0.5 CPUs, over by 0.25"
    over = quotas.over("a/u", {"gpus/A100": 1000})
    assert over is not None and over.render() == "queue a: 0 + 1 > 0.25 A100, over by 0.75"
    for holder in "xy":
        quotas.charge(holder, "a/u", {"jobs": 1})
    over = quotas.over("a/u", {"jobs": 1})
    assert over is not None and over.render() == "queue a: 2 + 1 > 2 jobs, over by 1"


def test_a_job_above_the_limit_alone_never_starts_and_is_refused_where_the_queue_says_so() -> None:
    waits = books(queue("a", limit=4))
    assert waits.never("a/u", gpus(4)) is None
    never = waits.never("a/u", gpus(5))
    assert never is not None and never.render() == "queue a: 0 + 5 > 4 GPUs, over by 1"
    assert waits.never("a/u", gpus(5), refusing=True) is None
    refuses = books(Queue(path="a", limit={"gpus": 4 * G}, refuse_over_limit=True))
    assert refuses.never("a/u", gpus(5), refusing=True) is not None


def test_what_is_guaranteed_is_never_lent_and_what_is_deserved_is_lent_while_unused() -> None:
    quotas = books(queue("a", guaranteed=8, deserved=16), queue("b", deserved=16))
    assert quotas.lends("b/u", gpus(24))
    lack = quotas.lack("b/u", gpus(25))
    assert lack is not None
    assert lack.render() == "queue b/u asks for 25 GPUs, 24 can be had; 8 more are kept for other queues"
    quotas.charge("big", "b/u", gpus(24))
    assert not quotas.lends("b/u", gpus(1))
    assert quotas.lends("a/u", gpus(8))
    assert not quotas.lends("a/u", gpus(9))
    assert quotas.below_guarantee("a/u", gpus(8))
    assert not quotas.below_guarantee("a/u", gpus(9))
    assert not quotas.below_guarantee("b/u", gpus(1))


def test_lend_limit_keeps_the_rest_of_what_is_deserved() -> None:
    quotas = books(queue("a", deserved=16, lend_limit=4), queue("b", deserved=16))
    assert quotas.lends("b/u", gpus(20))
    assert not quotas.lends("b/u", gpus(21))


def test_guarantees_inside_a_queue_hold_against_its_siblings_and_against_others() -> None:
    quotas = books(queue("acme/vision", guaranteed=4), queue("acme/nlp"), queue("beta", deserved=8))
    assert not quotas.lends("beta/u", gpus(29))
    assert not quotas.lends("acme/nlp/u", gpus(29))
    quotas.charge("x", "acme/nlp/u", gpus(28))
    assert quotas.lends("acme/vision/u", gpus(4))


def test_inside_a_pool_of_its_own_the_owners_quotas_do_not_count_but_those_below_do() -> None:
    queues = (
        queue("acme", guaranteed=8, limit=8),
        queue("acme/vision", guaranteed=8, limit=8),
        queue("acme/vision/ann", limit=20, guaranteed=4),
        queue("beta", guaranteed=20, limit=30),
    )
    quotas = books(*queues, owner="acme/vision")
    assert quotas.over("acme/vision/bob", gpus(28)) is None
    assert quotas.lends("acme/vision/bob", gpus(28))
    assert not quotas.lends("acme/vision/bob", gpus(29))  # ann's
    assert quotas.over("acme/vision/ann", gpus(21)) is not None
    assert quotas.over("beta/u", gpus(31)) is not None
    assert not quotas.below_guarantee("beta/u", gpus(1))
    quotas.charge("guest", "beta/u", gpus(20))
    assert may_reclaim(quotas, "acme/vision/bob", gpus(20), "beta/u", gpus(20))
    quotas.refund("guest")
    quotas.charge("own", "acme/vision/bob", gpus(28))
    assert not may_reclaim(quotas, "beta/u", gpus(4), "acme/vision/bob", gpus(28))


# --- books


def test_a_leaf_that_gets_children_keeps_its_jobs_in_a_leaf_of_their_own() -> None:
    quotas = books(capacity=8)
    quotas.charge("j1", "team", gpus(2))
    mark = quotas.mark()
    quotas.charge("j2", "team/ann", gpus(3))
    assert quotas.used("team") == {"gpus": 5 * G, "jobs": 2}
    assert quotas.used("team/-") == {"gpus": 2 * G, "jobs": 1}
    quotas.refund("j1")
    quotas.rollback(mark)
    assert quotas.used("team") == quotas.used("team/-") == {"gpus": 2 * G, "jobs": 1}
    quotas.charge("j3", "team", gpus(1))
    assert quotas.used("team/-") == {"gpus": 3 * G, "jobs": 2}
    quotas.refund("j1")
    quotas.refund("j3")
    assert quotas.used("") == {}


def test_charging_twice_is_an_error_and_refunding_twice_is_not() -> None:
    quotas = books()
    quotas.charge("j", "a/u", gpus(1))
    with pytest.raises(ValueError, match="j is charged already"):
        quotas.charge("j", "a/u", gpus(1))
    quotas.refund("j")
    quotas.refund("j")
    assert quotas.used("a") == {}


def test_other_quotas_over_the_same_books() -> None:
    quotas = books(queue("a", deserved=16))
    quotas.charge("j", "a/u", gpus(20))
    quotas.charge("own", "a", gpus(1))
    assert quotas.share("a") == Fraction(5, 32)
    quotas.advance(0)
    quotas.advance(7 * 86_400_000)
    other = quotas.successor(Tenancy(queues=(queue("a", deserved=8, limit=20),)))
    assert other.used("a") == quotas.used("a")
    assert other.share("a") == Fraction(13, 32)
    assert other.over("a/u", gpus(1)) is not None
    other.refund("j")
    other.refund("own")
    assert other.used("") == {}


NAMES = ("gpus", "cpus", "memory", "gpus/A100", "gpus/L4")
PATHS = st.sampled_from(["a", "a/x", "a/x/u", "a/y/u", "a/y/v", "b/z/u", "b/u", "c"])
AMOUNTS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5), max_size=4)
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("charge"), st.integers(0, 9), PATHS, AMOUNTS),
        st.tuples(st.just("refund"), st.integers(0, 9), st.just(""), st.just({})),
        st.tuples(
            st.sampled_from(["mark", "rollback", "settle", "capacity"]),
            st.integers(0, 9),
            st.just(""),
            st.just({}),
        ),
    ),
    max_size=30,
)


@given(OPS)
def test_usage_is_the_sum_of_what_is_held_at_every_level(ops: list[tuple[str, int, str, Amounts]]) -> None:
    """Law 3: of a leaf the sum of its jobs, of a queue that of its children; a rollback restores all of
    it."""
    quotas = Quotas(
        Tenancy(queues=(Queue(path="a/x", guaranteed={"gpus": 3}), Queue(path="a", deserved={"gpus/L4": 4}))),
        {"gpus": 20, "cpus": 30},
    )
    held: dict[str, tuple[str, Amounts]] = {}
    marks: list[tuple[int, dict[str, tuple[str, Amounts]]]] = []
    for what, number, path, amounts in ops:
        holder = f"j{number}"
        if what == "charge" and holder not in held:
            quotas.charge(holder, path, amounts)
            held[holder] = (path, amounts)
        elif what == "refund":
            quotas.refund(holder)
            held.pop(holder, None)
        elif what == "mark":
            marks.append((quotas.mark(), dict(held)))
        elif what == "rollback" and marks:
            mark, held = marks.pop()
            quotas.rollback(mark)
        elif what == "settle":
            quotas.settle()
            marks.clear()
        elif what == "capacity":
            quotas.set_capacity({"gpus": number, "cpus": 30})
        for queue_path in ("", "a", "a/x", "a/y", "a/y/u", "b", "b/z", "c"):
            expected: Amounts = {}
            for at, each in held.values():
                if not queue_path or at == queue_path or at.startswith(f"{queue_path}/"):
                    for name, amount in each.items():
                        expected[name] = expected.get(name, 0) + amount
            assert quotas.used(queue_path) == {name: amount for name, amount in expected.items() if amount}
    fresh = quotas.successor(quotas.tenancy)
    # a leaf of its own (`a/x/-`) is only there as long as its queue has children
    assert [row for row in fresh.rows() if row.running and not row.path.endswith("/-")] == [
        row for row in quotas.rows() if row.running and not row.path.endswith("/-")
    ]
    for path in ("a/x/u", "b/u"):
        for count in range(1, 9):
            assert fresh.lends(path, {"gpus": count}) == quotas.lends(path, {"gpus": count})


# --- shares


def test_share_is_the_dominant_one_above_what_is_deserved_by_weight() -> None:
    tenancy = Tenancy(
        queues=(
            Queue(path="a", deserved={"gpus": 8 * G, "cpus": 10_000}),
            Queue(path="b", weight_milli=2000),
            Queue(path="c"),
        )
    )
    quotas = Quotas(tenancy, {"gpus": 32 * G, "cpus": 100_000})
    assert quotas.key("a", {"gpus": 8 * G, "cpus": 10_000}) == 0
    quotas.charge("1", "a/u", {"gpus": 10 * G, "cpus": 60_000})
    assert quotas.share("a") == Fraction(1, 2)  # of the CPUs; of the GPUs only 1/16
    quotas.charge("2", "b/u", {"gpus": 16 * G})
    quotas.charge("3", "c/u", {"gpus": 8 * G})
    assert quotas.share("b") == quotas.share("c") == Fraction(1, 4)
    assert quotas.key("b", {"gpus": 2 * G}) == quotas.key("c", {"gpus": G}) < quotas.key("a", {})


def test_who_deserves_a_part_of_the_gpus_deserves_that_part_of_the_rest() -> None:
    capacity = {"gpus": 32 * G, "cpus": 128_000, "memory": 1 << 40}
    quotas = Quotas(Tenancy(queues=(queue("a", deserved=8),)), capacity)
    quarter = {"gpus": 8 * G, "cpus": 32_000, "memory": 1 << 38}
    assert quotas.key("a", quarter) == 0
    assert quotas.key("a", {**quarter, "cpus": 32_001}) > 0
    models = Quotas(Tenancy(queues=(queue("a", deserved={"gpus/A100": 8 * G}),)), capacity)
    assert models.key("a", quarter) == 0
    assert models.key("a", {"gpus": 9 * G}) > 0


def test_borrowing_fades_with_its_half_life_and_counts_half() -> None:
    quotas = Quotas(Tenancy(policy=SharePolicy(half_life_s=100)), {"gpus": 8 * G})
    quotas.charge("j", "a/u", gpus(4))
    fresh = quotas.key("b", gpus(1))
    quotas.advance(0)
    for now_ms in range(0, 1_000_000, 500):
        quotas.advance(now_ms)
    steady = quotas.key("a", {})
    quotas.refund("j")
    assert quotas.key("a", {}) == 0  # it borrows nothing
    after = quotas.key("a", gpus(1))
    assert fresh < after < steady
    for now_ms in range(1_000_000, 1_100_000, 500):
        quotas.advance(now_ms)
    half = quotas.key("a", gpus(1))
    assert abs((after - fresh) - 2 * (half - fresh)) <= (after - fresh) // 500
    assert quotas.share("a") == 0  # history is no reason to take from somebody


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_decay_is_the_same_in_one_step_and_in_many(one_ms: int, two_ms: int) -> None:
    def left(*times_ms: int) -> int:
        quotas = Quotas(Tenancy(policy=SharePolicy(half_life_s=4)), {"gpus": 10**9})
        quotas.advance(0)
        quotas.charge("j", "a/u", {"gpus": 10**9})
        quotas.advance(4000)
        quotas.refund("j")
        for now_ms in times_ms:
            quotas.advance(now_ms)
        return quotas.key("a", {"gpus": 1})

    once, twice = left(4000 + one_ms + two_ms), left(4000 + one_ms, 4000 + one_ms + two_ms)
    assert abs(once - twice) <= 2 + max(once, twice) // 1000


# --- who must give back


def test_borrowers_give_back_and_nobody_falls_below_what_is_guaranteed() -> None:
    quotas = books(queue("a", deserved=16), queue("b", guaranteed=8, deserved=16))
    quotas.charge("big", "b/u", gpus(24))
    quotas.charge("small", "b/u", gpus(8))
    assert may_reclaim(quotas, "a/u", gpus(16), "b/u", gpus(24))
    assert not may_reclaim(quotas, "a/u", gpus(32), "b/u", gpus(24))  # it would borrow as much itself
    quotas.refund("big")
    quotas.charge("medium", "b/u", gpus(4))
    assert not may_reclaim(quotas, "a/u", gpus(16), "b/u", gpus(4))  # within what it deserves
    quotas.charge("more", "b/u", gpus(6))
    assert may_reclaim(quotas, "a/u", gpus(16), "b/u", gpus(6))
    assert not may_reclaim(quotas, "a/u", gpus(16), "b/u", gpus(11))  # below what is guaranteed
    assert not may_reclaim(quotas, "b/u", gpus(1), "b/u", gpus(6))
    assert not may_reclaim(quotas, "a/u", {"cpus": 1000}, "b/u", gpus(6))  # gives nothing of that


def test_what_is_guaranteed_is_taken_back_even_from_those_within_what_they_deserve() -> None:
    """Such books come about when machines die, or when quotas change under what runs."""
    quotas = books(queue("a", guaranteed=8), queue("b", deserved=32), queue("c", guaranteed=4, deserved=8))
    for number in range(4):
        quotas.charge(f"b{number}", "b/u", gpus(7))
    quotas.charge("c", "c/u", gpus(4))
    assert may_reclaim(quotas, "a/u", gpus(8), "b/u", gpus(7))
    assert not may_reclaim(quotas, "a/u", gpus(9), "b/u", gpus(7))
    assert not may_reclaim(quotas, "a/u", gpus(8), "c/u", gpus(4))


def test_below_the_lowest_common_queue_only_real_borrowers_give() -> None:
    quotas = books(
        queue("a", deserved=16), queue("b", deserved=16), queue("b/x", deserved=12), queue("b/y", deserved=4)
    )
    quotas.charge("x", "b/x/u", gpus(12))
    quotas.charge("y", "b/y/u", gpus(12))
    assert may_reclaim(quotas, "a/u", gpus(8), "b/y/u", gpus(12))
    assert not may_reclaim(quotas, "a/u", gpus(8), "b/x/u", gpus(12))


def shares_of(quotas: Quotas, parent: str) -> list[Fraction]:
    children = quotas.tree.nodes[parent].children
    return sorted((quotas.share(path) for path in children), reverse=True)


@st.composite
def trees(draw: st.DrawFn) -> tuple[Queue, ...]:
    """A legal tree of two or three levels with quotas in GPUs and CPUs."""
    queues: list[Queue] = []
    for top in "abc"[: draw(st.integers(2, 3))]:
        total: Amounts = {}
        for child in "xyz"[: draw(st.integers(0, 3))]:
            guaranteed = draw(_few)
            queues.append(
                Queue(
                    path=f"{top}/{child}",
                    guaranteed=guaranteed,
                    deserved={
                        name: guaranteed.get(name, 0) + draw(st.integers(0, 3)) for name in draw(_names)
                    },
                    weight_milli=draw(st.sampled_from([500, 1000, 2000, 3000])),
                )
            )
            for name, amount in guaranteed.items():
                total[name] = total.get(name, 0) + amount
        own = {name: amount + draw(st.integers(0, 2)) for name, amount in total.items()}
        deserved = {name: own.get(name, 0) + draw(st.integers(0, 6)) for name in draw(_names)}
        lend = {
            name: draw(st.integers(0, amount)) for name, amount in deserved.items() if draw(st.booleans())
        }
        queues.append(
            Queue(
                path=top,
                guaranteed=own,
                deserved=deserved,
                lend_limit=lend,
                weight_milli=draw(st.sampled_from([1000, 2000])),
            )
        )
    return tuple(queues)


_names = st.lists(st.sampled_from(["gpus", "cpus"]), unique=True)
_few = st.dictionaries(st.sampled_from(["gpus", "cpus"]), st.integers(0, 2))
_leaves = st.sampled_from([f"{a}/{b}/{c}" for a in "abc" for b in "xyz" for c in "uv"])
_jobs = st.lists(
    st.tuples(_leaves, st.integers(0, 4), st.integers(0, 4)).filter(lambda job: job[1] + job[2] > 0),
    min_size=4,
    max_size=24,
)


class Room:
    """A pool without machines: whoever fits by amounts and quotas starts."""

    def __init__(self, queues: tuple[Queue, ...], jobs: list[tuple[str, int, int]]) -> None:
        self.capacity = {"gpus": 12, "cpus": 12}
        self.quotas = Quotas(Tenancy(queues=queues), self.capacity)
        self.asks = {f"j{n}": (leaf, {"gpus": g, "cpus": c}) for n, (leaf, g, c) in enumerate(jobs)}
        self.running: list[str] = []
        for leaf, _ in self.asks.values():
            self.quotas.tree.leaf(leaf)

    def fits(self, job: str) -> bool:
        leaf, amounts = self.asks[job]
        used = self.quotas.used("")
        free = all(used.get(name, 0) + amount <= self.capacity[name] for name, amount in amounts.items())
        return free and self.quotas.lends(leaf, amounts)

    def start(self, job: str) -> None:
        self.quotas.charge(job, *self.asks[job])
        self.running.append(job)

    def end(self, job: str) -> None:
        self.quotas.refund(job)
        self.running.remove(job)

    def victims(self, job: str) -> list[str]:
        """A set without which it fits, none of them for nothing, and all of them rightly; []: there is
        none."""
        leaf, amounts = self.asks[job]
        mark, chosen = self.quotas.mark(), list[str]()
        for victim in self.running:
            if self.fits(job):
                break
            if may_reclaim(self.quotas, leaf, amounts, *self.asks[victim]):
                self.quotas.refund(victim)
                chosen.append(victim)
        found = self.fits(job)
        for victim in list(reversed(chosen)) if found else ():
            self.quotas.charge(victim, *self.asks[victim])
            if self.fits(job):
                chosen.remove(victim)
            else:
                self.quotas.refund(victim)
        self.quotas.rollback(mark)
        return chosen if found and may_reclaim_all(self.quotas, leaf, amounts, chosen) else []

    def raises_above(self, job: str, victims: list[str]) -> bool:
        """Whether this would take more than it gives, so that a queue above all of them borrows more."""
        leaf = self.asks[job][0]
        top = min((_lowest(leaf, self.asks[victim][0]) for victim in victims), key=len)
        above = [path for path in (*_parents(leaf), "") if top == path or _is_strictly_below(top, path)]
        before = [self.quotas.share(path) for path in above]
        mark = self.quotas.mark()
        for victim in victims:
            self.quotas.refund(victim)
        self.quotas.charge(job, *self.asks[job])
        after = [self.quotas.share(path) for path in above]
        self.quotas.rollback(mark)
        return any(new > old for new, old in zip(after, before, strict=True))


@given(trees(), _jobs, st.permutations(range(24)))
def test_reclaims_end_and_each_lowers_the_largest_shares(
    queues: tuple[Queue, ...], jobs: list[tuple[str, int, int]], turn: list[int]
) -> None:
    """Law 6, without placement: first whoever fits starts, then all who wait take from whom they may, by
    turns, until it ends (but nobody takes free room of others with it: that is a start, not a reclaim).

    Each reclaim lowers the sorted shares below the lowest common queue lexicographically, or it fills what is
    kept; what queues use of what they keep never falls; and the last who was ended cannot take back at once.
    """
    room = Room(queues, jobs)
    quotas = room.quotas
    waiting = [f"j{n}" for n in turn if n < len(jobs)]
    for job in list(waiting):
        if room.fits(job):
            room.start(job)
            waiting.remove(job)
    reclaims, still = 0, 0
    while waiting and still < len(waiting):
        job = waiting.pop(0)
        leaf, amounts = room.asks[job]
        allowed = set(givers(quotas, leaf, amounts))
        assert all(
            room.asks[other][0] in allowed
            for other in room.running
            if may_reclaim(quotas, leaf, amounts, *room.asks[other])
        )
        victims = room.victims(job)
        if not victims or room.raises_above(job, victims):
            waiting.append(job)
            still += 1
            continue
        still = 0
        tops = {_lowest(leaf, room.asks[victim][0]) for victim in victims}
        shares = {top: shares_of(quotas, top) for top in tops}
        kept = kept_use(quotas)
        taking, pairs = quotas.tree.leaf(leaf), quotas.tree.pairs(amounts)
        by_right = any(
            quotas.keeps(taking, pairs, quotas.tree.nodes[path])
            for path in _parents(f"{leaf}/")
            if any(_is_strictly_below(path, top) for top in tops)
        )
        for victim in victims:
            room.end(victim)
        room.start(job)
        for top in tops if not by_right else ():
            assert shares_of(quotas, top) < shares[top]
        after = kept_use(quotas)
        assert all(after[key] >= amount for key, amount in kept.items())
        assert not may_reclaim(quotas, *room.asks[victims[-1]], leaf, amounts)
        waiting += victims
        reclaims += 1
        assert reclaims <= 20 * len(jobs)


def kept_use(quotas: Quotas) -> dict[tuple[str, str], int]:
    """How much each queue uses of what it keeps, by path and name."""
    return {
        (path, name): min(node.used[i], node.kept[i])
        for path, node in quotas.tree.nodes.items()
        for i, name in enumerate(quotas.tree.names)
    }


def test_what_a_queue_uses_of_its_guarantee_is_not_given_up_inside() -> None:
    """Two levels, found by the property below: the guarantee of b goes to a job of v, who borrows most inside
    b."""
    queues = (Queue(path="b", guaranteed={"gpus": 1, "cpus": 0}), Queue(path="a"))
    room = Room(queues, [("b/u/-", 0, 4), ("b/v/-", 1, 4), ("a/x/u", 1, 5)])
    room.start("j1")
    room.start("j2")
    assert room.quotas.share("b/v") > 0
    assert not may_reclaim(room.quotas, *room.asks["j0"], *room.asks["j1"])
    assert room.victims("j0") == []


def test_nobody_is_ended_only_to_make_another_fair_game() -> None:
    """Two levels, found by the property above: without the last question two jobs of b take turns for
    ever."""
    queues = (Queue(path="a", guaranteed={"gpus": 4}), Queue(path="b", deserved={"cpus": 1, "gpus": 2}))
    jobs = [("b/x/u", 4, 1), ("b/x/v", 0, 3), ("b/y/u", 1, 0), ("b/y/u", 4, 0)]
    room = Room(queues, jobs)
    for job in ("j1", "j2", "j3"):
        room.start(job)
    leaf, amounts = room.asks["j0"]
    assert may_reclaim_all(room.quotas, leaf, amounts, ["j1", "j3"])
    assert not may_reclaim_all(room.quotas, leaf, amounts, ["j3"])
    assert room.victims("j0") == []


def test_two_jobs_of_one_queue_do_not_take_turns_in_a_pool() -> None:
    """The same in a whole pool: what is evicted waits again, and after some cycles nothing moves any more."""
    queues = (
        Queue(path="a", guaranteed={"gpus": 4 * G}),
        Queue(path="b", deserved={"cpus": 1000, "gpus": 2 * G}),
    )
    tenancy = Tenancy(queues=queues, policy=AT_ONCE)
    cards = tuple(Device(index=n, model="L4", memory_bytes=1 << 34) for n in range(12))
    pool = Pool(tenancy, machines=[Machine(id="m", cpus_milli=12_000, devices=cards)])
    wishes = [("b/x/v", 0, 3), ("b/y/u", 1, 0), ("b/y/u", 4, 0), ("b/x/u", 4, 1)]
    asks = {
        f"j{n}": Ask(
            id=f"j{n}",
            queue=leaf,
            number=n,
            preemptible=True,
            needs=(Need(gpu_milli=g * G, cpus_milli=c * 1000),),
        )
        for n, (leaf, g, c) in enumerate(wishes)
    }
    for each in asks.values():
        pool.submit(each)
    moves = [pool.cycle(0)]
    for now_ms in range(60_000, 3_000_000, 60_000):
        moves.append(pool.cycle(now_ms))
        for evict in moves[-1].evictions:
            pool.ended(evict.job_id)
            pool.submit(asks[evict.job_id])
    assert len(moves[0].starts) == 3
    assert not any(move.starts or move.evictions for move in moves[-20:])


AT_ONCE = SharePolicy(min_runtime_s=0)


def _parents(leaf: str) -> list[str]:
    parts = leaf.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _lowest(one: str, two: str) -> str:
    above = [path for path in _parents(one) if path in _parents(two)]
    return above[-1] if above else ""


def _is_strictly_below(path: str, top: str) -> bool:
    return path != top and (not top or path.startswith(f"{top}/"))


# --- fair shares


@given(
    st.integers(0, 60),
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 8), st.integers(0, 8), st.integers(1, 4)),
        min_size=1,
        max_size=5,
    ),
)
def test_parts_are_within_wishes_use_everything_up_and_are_even_by_weight(
    amount: int, rows: list[tuple[int, int, int, int]]
) -> None:
    wanted = [row[0] for row in rows]
    kept = [min(row[1], row[2]) for row in rows]
    deserved = [row[2] for row in rows]
    weights = [row[3] for row in rows]
    parts = divide(amount, wanted, deserved=deserved, kept=kept, weights=weights)
    assert all(0 <= part <= want for part, want in zip(parts, wanted, strict=True))
    idle = sum(max(0, mine - part) for mine, part in zip(kept, parts, strict=True))
    if amount >= sum(kept):
        assert sum(parts) == min(sum(wanted), amount - idle)
        assert all(part >= min(want, mine) for part, want, mine in zip(parts, wanted, kept, strict=True))
    if amount >= sum(deserved):
        assert all(part >= min(want, due) for part, want, due in zip(parts, wanted, deserved, strict=True))
    plain = by_weight(amount, wanted, weights)
    for i, part in enumerate(plain):
        for j, other in enumerate(plain):
            if part < wanted[i]:  # who wants more has no less per weight than anybody, but for one unit
                assert (part + 1) * weights[j] >= (other - 1) * weights[i]


def test_rows_tell_people_what_is_used_and_what_would_be_fair() -> None:
    quotas = books(queue("acme", deserved=16, limit=30), Queue(path="beta", weight_milli=3000))
    quotas.charge("1", "acme/vision/ann", gpus(20))
    rows = {
        row.path: row
        for row in quotas.rows({"beta/bob": {"gpus": 30 * G}, "acme/vision/ann": {"gpus": 10 * G}})
    }
    assert list(rows) == ["acme", "acme/vision", "acme/vision/ann", "beta", "beta/bob"]
    acme = rows["acme"]
    assert (acme.used, acme.running, acme.share_milli) == (gpus(20), 1, 125)
    assert acme.fair == {"gpus": 20 * G}  # 16 and a quarter of the other 16
    assert rows["beta/bob"].fair == {"gpus": 12 * G}
    assert fair_shares(quotas.tree, {}).get("acme") == {}
