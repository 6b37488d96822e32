"""What queues borrowed lately, worked out from records: as if the books had been open all the time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from argosy.model.tenancy import Queue, SharePolicy, Tenancy
from argosy.scheduler.quota import Quotas, Span

G = 1000
HALF_S = 4096  # so that a tick is a second
TREE = Tenancy(
    queues=(
        Queue(path="a", deserved={"gpus": 4 * G}),
        Queue(path="b", deserved={"gpus": 2 * G, "gpus/A100": G}, weight_milli=3000),
        Queue(path="a/x", guaranteed={"gpus": G}),
    ),
    policy=SharePolicy(half_life_s=HALF_S),
)
CAPACITY = {"gpus": 8 * G, "cpus": 64 * G, "memory": 1 << 40, "gpus/A100": 4 * G}
LEAVES = ("a/x", "a/y", "a", "b", "b/ann", "c")

AMOUNTS = st.builds(
    lambda gpus, cpus, model: {
        "jobs": 1,
        "gpus": gpus * G,
        "cpus": cpus * G,
        **({"gpus/A100": gpus * G} if model else {}),
    },
    st.integers(0, 4),
    st.integers(1, 8),
    st.booleans(),
)
SPANS = st.lists(
    st.builds(
        lambda leaf, amounts, begin_s, length_s: Span(
            leaf, amounts, begin_s * 1000, (begin_s + length_s) * 1000
        ),
        st.sampled_from(LEAVES),
        AMOUNTS,
        st.integers(0, 5 * HALF_S),
        st.integers(1, 2 * HALF_S),
    ),
    max_size=12,
)


def lived(spans: list[Span], now_ms: int) -> Quotas:
    """Books that were open all the time."""
    quotas = Quotas(TREE, CAPACITY)
    for span in spans:
        quotas.tree.leaf(span.leaf)
    times = sorted({at for span in spans for at in (span.from_ms, span.to_ms) if at < now_ms})
    for at_ms in times:
        quotas.advance(at_ms)
        for number, span in enumerate(spans):
            if span.to_ms == at_ms:
                quotas.refund(str(number))
            elif span.from_ms == at_ms:
                quotas.charge(str(number), span.leaf, span.amounts)
    quotas.advance(now_ms)
    return quotas


@given(SPANS, st.integers(0, 8 * HALF_S))
def test_recalled_is_as_lived(spans: list[Span], now_s: int) -> None:
    now_ms = now_s * 1000
    spans = [span for span in spans if span.from_ms < now_ms]  # others may make leaves
    open_all_the_time = lived(spans, now_ms)
    recalled = Quotas(TREE, CAPACITY)
    recalled.recall(spans, now_ms)
    for path, node in open_all_the_time.tree.nodes.items():
        there = recalled.tree.nodes.get(path)
        for i, name in enumerate(open_all_the_time.tree.names):
            mine = node.history[i]
            assert abs(mine - (there.history[recalled.tree.names.index(name)] if there else 0)) <= 1 + (
                mine >> 20
            )


def test_recalled_again_is_the_same_and_replaces_what_was_there() -> None:
    spans = [Span("c", {"jobs": 1, "gpus": 4 * G}, 0, HALF_S * 1000)]
    once, twice = Quotas(TREE, CAPACITY), Quotas(TREE, CAPACITY)
    once.recall(spans, HALF_S * 1000)
    twice.recall(spans, HALF_S * 500)
    twice.recall(spans, HALF_S * 1000)
    assert once.tree.nodes["c"].history == twice.tree.nodes["c"].history
    assert once.tree.nodes["c"].history[2] == 2 * G  # half of it, after half a life
    once.recall([], HALF_S * 1000)
    assert not any(once.tree.nodes["c"].history)


def test_who_borrowed_lately_comes_after_who_did_not() -> None:
    quotas = Quotas(TREE, CAPACITY)
    one = {"jobs": 1, "gpus": G}
    assert quotas.key("c", one) == quotas.key("d", one)
    quotas.recall([Span("c", {"jobs": 1, "gpus": 4 * G}, 0, 1_000_000)], 2_000_000)
    assert quotas.key("c", one) > quotas.key("d", one)
    quotas.advance(64 * HALF_S * 1000 + 2_000_000)  # long ago
    assert quotas.key("c", one) == quotas.key("d", one)
