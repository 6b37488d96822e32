"""The page of a comparison: one file, every text escaped, bars as long as the amounts."""

from __future__ import annotations

from xml.etree import ElementTree

from argosy.model.priced import CompareView
from argosy.pages.comparison import render_comparison

ROWS = [
    CompareView(kind=kind, place=place, instance_type="p4d", num_nodes=1, price_micro_usd=dollars * 1_000_000)
    for kind, place, dollars in (
        ("owned", "ssh/r1", 0),
        ("reserved", '<script>alert("x")</script>/r1', 5),
        ("spot", "aws/r1", 10),
        ("on-demand", "aws/r1", 32),
    )
]


def test_the_page_is_one_file_and_every_text_is_escaped() -> None:
    page = render_comparison(ROWS, title="a < b & c")
    assert "<script" not in page and "a &lt; b &amp; c" in page
    for outside in ("src=", "href=", "url(", "@import", "<link"):
        assert outside not in page
    assert page.count("http") == page.count("http://www.w3.org/2000/svg")
    body = page[page.index("<body>") : page.index("</body>") + 7]
    tree = ElementTree.fromstring(body)
    bars = [each for each in tree.iter() if each.tag.endswith("rect")]
    assert len(bars) == len(ROWS) == 4
    widths = [int(each.attrib["width"]) for each in bars]
    assert widths == sorted(widths) and max(widths) == 420
    assert [each.text for each in tree.iter("th")][:2] == ["Capacity", "Place"]


def test_a_page_of_nothing_says_so() -> None:
    assert "<p>Nothing fits.</p>" in render_comparison(())
