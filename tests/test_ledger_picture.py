"""The picture over the ledger of reproductions: a mark for each row, in words too, and boxes that say which rows the tables show."""

import re
from collections import Counter

import pytest
import reproductions
from conftest import grave_violations
from reproductions import Answer

ROWS = reproductions.rows()


@pytest.mark.parametrize(
    ("row", "found", "kind"),
    [
        ({"claim": "a"}, Answer("holds"), "holds"),
        ({"claim": "a"}, Answer("not always: 1 of 5 checks hold"), "fails"),
        ({"claim": "a"}, Answer("fails"), "fails"),
        ({"claim": "a"}, Answer("says nothing"), "open"),
        ({"none": "the paper quotes it from Dupont et al. (2019)"}, Answer("–"), "quoted"),
        ({"none": "out of reach here"}, Answer("–"), "open"),
        ({"none": "nothing was measured"}, Answer("–"), "nothing"),
        ({"runs": {}}, Answer("not yet run"), "open"),
        ({"runs": {}}, Answer("failed"), "fails"),
        ({"runs": {}}, Answer("99 %", 99.0, scale="cpu"), "small"),
        ({"runs": {}}, Answer("99 %", 99.0), "run"),
        ({"timing": {}}, Answer("97 %", 97.0), "small"),
    ],
)
def test_what_became_of_a_row(row, found, kind):
    assert reproductions.state(row, found) == kind


@pytest.fixture(scope="module")
def kinds():
    return [reproductions.state(row, reproductions.answer(row)) for row in ROWS]


def test_each_row_has_its_mark_and_a_screen_reader_its_count(open_page, site, kinds):
    page = open_page(site / "reproductions.html", width=390, formulas=False)
    glance = page.get_by_role("group", name="What is reproduced, at a glance")
    marks = glance.locator("li .jfb-mark")
    assert marks.evaluate_all("(marks) => marks.map((mark) => mark.dataset.state)") == kinds
    assert marks.evaluate_all("(marks) => marks.map((mark) => mark.title)") == [row["what"] for row in ROWS]
    # a shape for each, not a colour alone
    shapes = dict(marks.evaluate_all("(marks) => marks.map((mark) => [mark.dataset.state, mark.textContent])"))
    assert len(set(shapes.values())) == len(shapes)
    heard = " ".join(glance.locator(".jfb-heard").all_text_contents())
    for kind, (_, meaning) in reproductions.STATES.items():
        counted = [
            int(number) for number in re.findall(rf"(\d+) {re.escape(meaning.partition(':')[0])}(?:,|$| :)", heard)
        ]
        assert sum(counted) == Counter(kinds)[kind], kind
    # each line leads to its table
    for link in glance.get_by_role("link").all():
        assert page.locator((link.get_attribute("href") or "").replace("#", "[id='") + "']").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert grave_violations(page) == []


def test_the_boxes_say_which_rows_are_shown(open_page, site, kinds):
    sources: dict[str, set[str]] = {}
    for row, kind in zip(ROWS, kinds, strict=True):
        sources.setdefault(row["source"], set()).add(kind)
    # whichever table has rows of one kind only
    alone, kind = next((source, *found) for source, found in sources.items() if len(found) == 1)
    page = open_page(site / "reproductions.html", formulas=False)
    rows = page.locator(".jfb-ledger tbody tr")
    shown = "(rows) => rows.filter((row) => row.checkVisibility()).length"
    assert rows.evaluate_all(shown) == len(ROWS)
    said = page.locator(".jfb-shown")
    assert said.inner_text() == f"{len(ROWS)} rows."
    box = page.get_by_role("checkbox", name=reproductions.STATES[kind][1])
    box.press("Space")
    left = len(ROWS) - Counter(kinds)[kind]
    assert rows.evaluate_all(shown) == left
    assert said.inner_text() == f"{left} of {len(ROWS)} rows."
    # a table of which no row is left is gone
    assert page.locator(f"[id='{reproductions.anchor(alone)}'] + *").is_hidden()
    box.press("Space")
    assert rows.evaluate_all(shown) == len(ROWS)
