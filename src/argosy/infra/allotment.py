"""Allocation on a shared machine: which accelerators a node gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from argosy.model.offer import Placement


def allot_devices(
    free_milli: Mapping[int, int], milli: int, count: int
) -> list[tuple[tuple[int, int], ...]] | None:
    """For each of `count` nodes the pairs (device, thousandths of it) that make `milli`, or None when they do
    not fit.

    Whole devices belong to one node; a share may have neighbours. A share goes where least is left, so that
    whole devices stay free; ties go to the lowest index.

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


def allot_placed(
    free_milli: Mapping[int, int], placements: Sequence[Placement]
) -> list[tuple[tuple[int, int], ...]] | None:
    """The devices that the placements of a claim name, node by node, or None when one of them is not free or
    not there.

    >>> from argosy.model.offer import DeviceShare
    >>> allot_placed({0: 1000, 1: 500}, [Placement(rank=0, node_id="m", devices=(DeviceShare(index=1, milli=500),))])
    [((1, 500),)]
    """  # noqa: E501
    left = dict(free_milli)
    result: list[tuple[tuple[int, int], ...]] = []
    for place in sorted(placements, key=lambda each: each.rank):
        for share in place.devices:
            left[share.index] = left.get(share.index, 0) - share.milli
            if left[share.index] < 0:
                return None
        result.append(tuple((share.index, share.milli) for share in place.devices))
    return result
