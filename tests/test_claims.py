"""The object that shows a claim."""

import json
import re
from typing import Any

import pytest
import torch
from IPython.core.formatters import DisplayFormatter

from jfb_tutorial.pages.claims import MIME_TYPE, Check, Claim

GOOD, BAD = Check("γ", 0.46, "<", 0.5), Check("γ on [−1, 1]", 4.98, "<=", 0.5)


def claim(**changes):
    fields = {"identifier": "jfb-lemma-F.1", "states": "a < b", "source": "JFB Lemma F.1", "concluded": [GOOD]}
    return Claim(**{**fields, **changes})


@pytest.mark.parametrize(
    ("relation", "below", "equal", "above"),
    [("<", 1, 0, 0), ("<=", 1, 1, 0), (">", 0, 0, 1), (">=", 0, 1, 1), ("==", 0, 1, 0)],
)
def test_a_check_measures_its_relation(relation, below, equal, above):
    assert [Check("x", value, relation, 2).holds for value in (1, 2, 3)] == [bool(x) for x in (below, equal, above)]
    assert not Check("x", float("nan"), relation, 2).holds


def test_a_check_takes_one_number_of_any_kind():
    check: Any = Check  # which says that it takes floats
    assert check("x", torch.tensor(0.25, dtype=torch.float64), "<", torch.tensor([1.0])).measured == 0.25
    with pytest.raises(TypeError, match="measured must be one real number, got Tensor"):
        check("x", torch.zeros(2), "<", 1)
    with pytest.raises(TypeError, match="bound must be one real number, got str"):
        check("x", 1, "<", "2")
    for name, values in {"measured": (10**5000, "<", 1), "bound": (1, "<", -(10**400))}.items():
        with pytest.raises(ValueError, match=f"{name} must be a number that a float holds, .*; divide both"):
            check("x", *values)
    with pytest.raises(ValueError, match="relation must be one of"):
        Check("x", 1, "=<", 1)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (GOOD, "0.46 < 0.5"),
        (BAD, "4.98 > 0.5"),
        (Check("x", 3, "==", 3), "3"),
        (Check("x", 3, "==", 1), "3 ≠ 1"),
        (Check("x", 3.7e-16, "<", 1e-14), "below 1e-14"),
        (Check("x", 3.7e-13, "<", 1e-14), "3.7e-13 ≥ 1e-14"),
        (Check("x", -3.7e-16, "<", 0), "-3.7e-16 < 0"),
        (Check("x", 0.123456, "<", float("inf")), "0.1235 < inf"),
        (Check("x", float("nan"), "<", 1), "nan ? 1"),
        (Check("x", 0.49999999, "<", 0.5), "0.49999999 < 0.5"),
        (Check("x", 0.5, "<=", 0.5), "0.5 ≤ 0.5"),
        (Check("x", 1_000_001, ">", 1_000_000), "1000001 > 1000000"),
    ],
)
def test_a_check_is_written_as_a_true_statement(check, text):
    assert str(check) == text


def test_the_verdict():
    assert claim().verdict == "holds"
    assert claim(concluded=[GOOD, BAD]).verdict == "fails"
    assert claim(assumed=[BAD], concluded=[BAD]).verdict == "silent"
    assert claim(dropped=[BAD]).verdict == "holds"


def test_what_a_cell_stores_carries_the_claim_as_data():
    shown, _ = DisplayFormatter().format(claim(assumed=[GOOD], dropped=[BAD], states="a < b & <i>c</i>"))
    assert set(shown) == {MIME_TYPE, "text/html", "text/plain"}
    data = json.loads(json.dumps(shown[MIME_TYPE]))
    assert data["identifier"] == "jfb-lemma-F.1"
    assert data["verdict"] == "holds"
    assert data["dropped"] == [{"what": "γ on [−1, 1]", "shown": "4.98 > 0.5", "holds": False}]
    assert 'id="jfb-lemma-F.1"' in shown["text/html"]
    assert "<details" in shown["text/html"]
    assert "a &lt; b &amp; &lt;i&gt;" in shown["text/html"]
    # what fails because its hypothesis was dropped is not marked as wrong
    assert "4.98 > 0.5  no longer holds" in shown["text/plain"]
    assert "✗" not in shown["text/html"] + shown["text/plain"]
    assert "0x" not in shown["text/plain"]


def line(given):
    """What is seen before the box is opened."""
    (summary,) = re.findall("<summary>(.*)</summary>", given._html())
    return re.sub("<[^>]+>", "", summary)


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({}, "✓ T is a contraction. checked"),
        (
            {"concluded": [GOOD, GOOD], "dropped": [BAD]},
            "✓ T is a contraction. checked in 2 measurements; it fails without its hypothesis",
        ),
        ({"dropped": [BAD, BAD]}, "✓ T is a contraction. checked; it fails without its hypotheses"),
        ({"dropped": [GOOD, BAD]}, "✓ T is a contraction. checked; of 2 cases without a hypothesis it fails in 1"),
        ({"dropped": [GOOD]}, "✓ T is a contraction. checked; of the one case without a hypothesis it fails in none"),
        ({"tested": "9 of 9 maps < 1"}, "✓ T is a contraction. 9 of 9 maps &lt; 1"),
        ({"tested": "on 9 maps", "quiet": True}, "✓ on 9 maps"),
        ({"concluded": [BAD]}, "✗ T is a contraction. fails as measured"),
        ({"assumed": [BAD]}, "– T is a contraction. says nothing here: a hypothesis fails"),
        ({"concluded": [BAD], "tested": "on 9 maps"}, "✗ T is a contraction. fails as measured; on 9 maps"),
    ],
)
def test_the_line_before_the_box_is_opened(changes, seen):
    assert line(claim(states="T is a contraction.", **changes)) == seen


def test_a_quiet_claim_keeps_its_sentence_inside():
    html = claim(states="T is a contraction.", quiet=True)._html()
    assert "T is a contraction." in html.partition("</summary>")[2]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"identifier": "Lemma F.1"}, ValueError, "identifier must look like jfb-theorem-3.1"),
        ({"concluded": []}, ValueError, "concluded must hold at least one Check"),
        ({"assumed": [True]}, TypeError, "assumed must hold Check objects, got bool"),
    ],
)
def test_bad_claims(changes, error, words):
    with pytest.raises(error, match=words):
        claim(**changes)
