"""Which accelerators a node gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def allot_devices(
    free_milli: Mapping[int, int], milli: int, count: int
) -> list[tuple[tuple[int, int], ...]] | None:
    """For each of `count` nodes the pairs (device, thousandths of it) that make `milli`, or None when they do not fit.

    Whole devices belong to one node; a share may have neighbours. A share goes where least is left, so that whole
    devices stay free; ties go to the lowest index.

    >>> allot_devices({0: 1000, 1: 500}, 250, 2)
    [((1, 250),), ((1, 250),)]
    >>> allot_devices({0: 1000, 1: 1000}, 1000, 3) is None
    True
    """
    left = dict(free_milli)
    result: list[tuple[tuple[int, int], ...]] = []
    for _ in range(count):
        taken: list[tuple[int, int]] = []
        whole, share = divmod(milli, 1000)
        free = [index for index in sorted(left) if left[index] == 1000][:whole]
        if len(free) < whole:
            return None
        for index in free:
            taken.append((index, 1000))
            left[index] = 0
        if share:
            fitting = [index for index in sorted(left) if left[index] >= share]
            if not fitting:
                return None
            index = min(fitting, key=lambda one: (left[one], one))
            taken.append((index, share))
            left[index] -= share
        result.append(tuple(taken))
    return result


def free_milli(devices: Sequence[int], taken: Sequence[tuple[int, int]]) -> dict[int, int]:
    """What is left of each device after what is `taken`."""
    left = dict.fromkeys(devices, 1000)
    for index, milli in taken:
        if index in left:
            left[index] -= milli
    return left
