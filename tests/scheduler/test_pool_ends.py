from hypothesis import given
from hypothesis import strategies as st

from argosy.scheduler import ends
from argosy.scheduler.ask import Need
from argosy.scheduler.backfill import Release
from argosy.scheduler.ends import Ends
from argosy.scheduler.whatif import Allocation


def release(holder: str, at_ms: int) -> Release:
    return Release(at_ms, holder, "a/u", Allocation(Need(), (), {}))


CHANGES = st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 5), st.booleans()))


@given(CHANGES, st.sampled_from([0, 3, ends.FEW]))
def test_the_order_is_that_of_time_and_holder_whenever_it_is_asked_for(
    changes: list[tuple[str, int | None, bool]], few: int
) -> None:
    books, known = Ends(), dict[str, Release]()
    for holder, at_ms, asked in changes:
        if at_ms is None:
            books.remove(holder)
            known.pop(holder, None)
        else:
            known[holder] = release(holder, at_ms)
            books.add(known[holder])
        if asked:
            books.first(few)
    expected = sorted(known.values(), key=lambda each: (each.at_ms, each.holder))
    assert books.next_ms() == (expected[0].at_ms if expected else None)
    assert books.first(2) == expected[:2]
    assert list(books) == books.first() == expected
    assert len(books) == len(expected)


def test_many_changes_at_once() -> None:
    books = Ends()
    for number in range(2 * ends.FEW):
        books.add(release(f"j{number}", number % 7))
    for number in range(ends.FEW):
        books.remove(f"j{number}")
    books.add(release("j0", 3))
    found = [(each.at_ms, each.holder) for each in books]
    assert found == sorted(found)
    assert len(found) == ends.FEW + 1
    assert books.next_ms() == 0


def test_many_changes_are_laid_between_what_is_there() -> None:
    books, few = Ends(), ends.FEW
    for number in range(3 * few):
        books.add(release(f"j{number}", number % 7))
    assert len(books.first()) == 3 * few
    for number in range(few):
        books.remove(f"j{number}")
        books.add(release(f"k{number}", number % 9))
    found = [(each.at_ms, each.holder) for each in books]
    expected = [(n % 7, f"j{n}") for n in range(few, 3 * few)] + [(n % 9, f"k{n}") for n in range(few)]
    assert found == sorted(expected)
