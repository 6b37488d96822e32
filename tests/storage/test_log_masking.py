from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from argosy.storage.masking import Mask


def hide(data: bytes, secrets: list[str]) -> bytes:
    """The obvious way, with everything at hand."""
    out = bytearray(data)
    for secret in secrets:
        word = secret.encode()
        for at in range(len(data)):
            if word and data.startswith(word, at):
                out[at : at + len(word)] = b"*" * len(word)
    return bytes(out)


@given(
    st.text("ab", max_size=60),
    st.lists(st.text("ab", min_size=4, max_size=6), max_size=3),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_cuts_do_not_matter(text: str, secrets: list[str], cuts: list[int]) -> None:
    data = text.encode()
    mask = Mask(secrets)
    out = b""
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        shown = mask.feed(data[start:end])
        out += shown
        assert len(out) + mask.held == end
    assert out + mask.flush() == hide(data, secrets)


def test_only_what_may_be_a_secret_is_held_back() -> None:
    mask = Mask(["hunter2"])
    assert mask.feed(b"hello h") == b"hello "
    assert mask.feed(b"ow are you\n") == b"how are you\n"
    assert mask.held == 0


def test_what_is_too_short_to_be_secret_is_shown() -> None:
    assert Mask(["", "abc"]).feed(b"abc") == b"abc"


def test_lines_of_a_key_are_hidden_one_by_one() -> None:
    mask = Mask(["-----BEGIN-----\nAbCdEfGhIjKl\nend"])
    assert mask.feed(b"> AbCdEfGhIjKl <\n") == b"> ************ <\n"
    assert mask.feed(b"end\n") == b"end\n"


def test_a_mask_takes_over_what_another_held() -> None:
    first = Mask(["secret"])
    assert first.feed(b"a sec") == b"a "
    second = Mask(["secrets!"], after=first)
    assert second.feed(b"rets!") == b"********"


def test_a_secret_cut_by_a_crash_is_hidden_to_its_end() -> None:
    mask = Mask(["hunter2"], before=b"password ****")
    assert mask.feed(b"er2 and on") == b"*** and on"
    plain = Mask(["hunter2"], before=b"password: ")
    assert plain.feed(b"er2 and on") == b"er2 and on"
