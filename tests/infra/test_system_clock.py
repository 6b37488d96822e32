"""The server's clock when the machine's wall clock jumps."""

from __future__ import annotations

from argosy.infra.system import SystemClock, SystemIds


def test_a_wall_clock_that_jumps_moves_nothing() -> None:
    wall, steady = [1_700_000_000_000_000_000], [5_000_000_000]
    clock = SystemClock(wall_ns=lambda: wall[0], steady_ns=lambda: steady[0])
    assert clock.now_ms() == 1_700_000_000_000
    for jump_s in (-86_400, 10 * 86_400):
        wall[0] += jump_s * 1_000_000_000
        assert clock.now_ms() == 1_700_000_000_000
    steady[0] += 2_000_000_000
    assert clock.now_ms() == 1_700_000_002_000


def test_the_real_clock_tells_the_time_and_ids_sort_by_it() -> None:
    clock, ids = SystemClock(), SystemIds()
    assert clock.now_ms() > 1_600_000_000_000
    made = [ids.new("job") for _ in range(1000)]
    assert made == sorted(set(made))
