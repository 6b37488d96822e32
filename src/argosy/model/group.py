"""What a group of jobs looks like: how many tasks, in which order, how many at once, and when it fails."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

MEMBERS_MAX: Final = 20_000  # tasks of one group


class When(StrEnum):
    """What must have become of the tasks before, for a task to run."""

    SUCCEEDED = "succeeded"  # all of them did
    FAILED = "failed"  # at least one of them failed
    ALWAYS = "always"  # they have ended, or were skipped


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task of a group. Tasks are called by their positions: 0, 1, 2 ..."""

    task: int = 0  # position of its program among those of the group
    name: str = ""
    values: dict[str, str] = {}  # of the sweep: variables, and `{{matrix.NAME}}` in its commands
    after: tuple[int, ...] = ()  # positions of the tasks that must have ended before
    when: When = When.SUCCEEDED


class Layout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tasks of a group and their order."""

    size: int  # number of tasks
    members: tuple[Member, ...] = ()  # (): an array, `size` tasks that run the first program
    parallel: int = 0  # at most so many at once; 0: no limit
    fail_fast: bool = False  # the first failure ends the others
    together: bool = False  # tasks of one job group: they start at the same time and know each other
    primary: tuple[int, ...] = ()  # when these have ended, the others are ended too; (): all count
    delays_s: tuple[int, ...] = ()  # by position: how long a task goes on after the primary ones

    def member(self, index: int) -> Member:
        """
        >>> Layout(size=3).member(2)
        Member(task=0, name='', values={}, after=(), when=<When.SUCCEEDED: 'succeeded'>)
        """
        return self.members[index] if self.members else _EQUAL

    def delay_s(self, index: int) -> int:
        return self.delays_s[index] if index < len(self.delays_s) else 0


_EQUAL: Final = Member()


class Membership(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job of a group knows of the group."""

    group: int  # number of the group
    size: int  # how many tasks it has
    envs: dict[str, str] = {}  # variables that the group gives it, besides those of its task
    program: int = 0  # which of the programs of the group it runs
    together: bool = False  # it starts when all tasks of the group have their nodes


def find_circle(after: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Tasks that wait for each other in a circle, in the order of waiting; () when there is none.

    >>> find_circle(((), (0,), (1,))), find_circle(((2,), (0,), (1,)))
    ((), (0, 2, 1))
    """
    state = [0] * len(after)  # 1: on the way, 2: done
    for start in range(len(after)):
        way: list[int] = []
        stack = [start]
        while stack:
            at = stack[-1]
            if state[at] == 0:
                state[at] = 1
                way.append(at)
            following = (
                next((each for each in after[at] if state[each] != 2), None) if state[at] == 1 else None
            )
            if following is None:
                stack.pop()
                if state[at] == 1:
                    state[at] = 2
                    way.pop()
            elif state[following] == 1:
                return tuple(way[way.index(following) :])
            else:
                stack.append(following)
    return ()
