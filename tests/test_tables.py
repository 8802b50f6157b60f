"""Tables and the numbers of sentences, as a cell stores them."""

import re

import pytest
from IPython.core.formatters import DisplayFormatter

from jfb_tutorial.pages.tables import table
from jfb_tutorial.pages.values import values

HEAD = ["rule", "cosine", "steps", "remark"]
ROWS: list[list[str | int]] = [
    ["JFB", "0.923", 7, "one < step"],
    ["exact", "1", 1234, ""],
    ["series", "< 1e-3", 12, "k = 5"],
]
CAPTION = "Three rules at one equilibrium."


def test_the_text_has_points_under_points():
    assert str(table(HEAD, ROWS, caption=CAPTION)) == (
        "Three rules at one equilibrium.\n"
        "rule     cosine  steps  remark\n"
        "JFB       0.923      7  one < step\n"
        "exact     1      1,234\n"
        "series  < 1e-3      12  k = 5"
    )


def test_rows_may_come_from_a_generator():
    made = table((name for name in HEAD), ((cell for cell in row) for row in ROWS), caption=CAPTION)
    assert made == table(HEAD, ROWS, caption=CAPTION)
    with pytest.raises(ValueError, match="rows must hold at least one row"):
        table(HEAD, iter(ROWS[:0]), caption=CAPTION)
    with pytest.raises(TypeError, match="row 0 must be a sequence of cells, got 'JFB'"):
        table(["a", "b", "c"], ["JFB"], caption=CAPTION)


def test_the_page_has_a_table_with_headings_and_a_caption():
    shown, _ = DisplayFormatter().format(table(HEAD, ROWS, caption=CAPTION))
    assert set(shown) == {"text/html", "text/plain"}
    html = shown["text/html"]
    assert f"<caption>{CAPTION}</caption>" in html
    assert re.findall(r'<th scope="col"[^>]*>([^<]*)', html) == HEAD
    assert re.findall(r'<th scope="row"[^>]*>([^<]*)', html) == ["JFB", "exact", "series"]
    assert "one &lt; step" in html
    # as wide as the longest fraction, and neither seen nor read aloud
    assert '1<i aria-hidden="true">.000</i>' in html
    assert '"jfb-table"' in html
    assert '"jfb-table jfb-many"' in table(["a", *"bcde"], [["x", 1, 2, 3, 4]], caption=CAPTION)._html()


@pytest.mark.parametrize(
    ("head", "rows", "caption", "error", "words"),
    [
        (["a", "b"], [["x"]], CAPTION, ValueError, "row 0 must have 2 cells, one for each heading, got 1"),
        (["a", "b"], [], CAPTION, ValueError, "rows must hold at least one row"),
        (["a", "b"], [["x", 1]], "Rules", ValueError, "caption must say what the table shows"),
        (["a", "b"], [["x", 0.1]], CAPTION, TypeError, "a cell must be text or an integer, got 0.1 of type float"),
    ],
)
def test_bad_tables(head, rows, caption, error, words):
    with pytest.raises(error, match=words):
        table(head, rows, caption=caption)


def test_values_are_stored_as_the_role_of_the_text_reads_them(monkeypatch):
    published: list[dict] = []
    monkeypatch.setattr("IPython.display.publish_display_data", lambda **output: published.append(output))
    values(cosine="0.923", epochs=18)
    assert [(output["metadata"]["scrapbook"]["name"], output["data"]) for output in published] == [
        ("cosine", {"application/papermill.record/text/plain": "0.923"}),
        ("epochs", {"application/papermill.record/text/plain": "18"}),
    ]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0.1, TypeError, "must be text or an integer, got 0.1 of type float; write cosine="),
        (True, TypeError, "must be text or an integer"),
        ("", ValueError, "must be one line of text"),
        ("a\nb", ValueError, "must be one line of text"),
    ],
)
def test_bad_values(value, error, words):
    with pytest.raises(error, match=words):
        values(cosine=value)
