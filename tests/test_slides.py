"""The slides: each fits the screen and the page, has what it names from the chapters, and works from disk without a network."""

import json
import re
import shutil
import sys

import pytest
from conftest import BOOK, grave_violations

sys.path.insert(0, str(BOOK / "_ext"))

import chapters
import slide_sources
import slides

SOURCES = sorted((BOOK / "course" / "slides").glob("*.md"))
SESSIONS = [path for path in SOURCES if path.stem.startswith("session-")]
NAMES = [path.stem for path in SOURCES]
CALLS = {path.stem: len(re.findall(r"^:+\{explorer\}", path.read_text(), re.MULTILINE)) for path in SOURCES}
"""How many explorers a deck has."""


@pytest.fixture(scope="session")
def decks(tmp_path_factory):
    """The folder with all decks."""
    folder = tmp_path_factory.mktemp("decks")
    slides.build(folder)
    return folder


@pytest.fixture
def deck(decks, open_page):
    """Opens a deck on a screen of 1280 by 720; says how many slides it has."""

    def show(name, *, formulas=False):
        page = open_page(decks / f"{name}.html", width=slides.WIDTH, height=slides.HEIGHT, formulas=formulas)
        page.wait_for_function("window.Reveal && Reveal.isReady()")
        page.evaluate("window.MathJax?.startup?.promise")
        return page, page.evaluate("Reveal.getTotalSlides()")

    return show


@pytest.fixture
def small_deck(tmp_path, capsys):
    """Builds a deck of these lines; returns its HTML, or what was said when it failed."""

    def build(*lines):
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        (source / "session-1.md").write_text("# A deck\n\n" + "\n\n".join(lines) + "\n")
        try:
            (deck,) = slides.build(tmp_path / "built", source)
        except slides.SphinxError:
            return capsys.readouterr().err
        return deck.read_text()

    return build


def headings(path):
    """The titles of a deck's slides."""
    return re.findall(r"^#{1,3} (.+)$", path.read_text(), re.MULTILINE)


# What is drawn of the slide that is shown: what lies outside the screen, and type that the last row cannot read
FAULTS = """() => {
  const slide = Reveal.getCurrentSlide(), title = slide.querySelector("h1, h2, h3").textContent, faults = [];
  const skipped = ".notes, .deck-spoken, .deck-picture img, mjx-assistive-mml, svg :not(text)";
  const unseen = (e) => e.closest(".jfb-words") && getComputedStyle(e.closest(".jfb-words")).position === "absolute";
  if (slide.scrollHeight > 720 || slide.scrollWidth > 1280) faults.push(`${title}: ${slide.scrollWidth} by ${slide.scrollHeight}`);
  for (const box of slide.querySelectorAll(".deck-picture"))
    if (box.firstElementChild.offsetWidth > box.clientWidth) faults.push(`${title}: its picture is cut at the side`);
  for (const part of slide.querySelectorAll("*")) {
    const { left, top, right, bottom, width, height } = part.getBoundingClientRect();
    if (!width || !height || part.matches(skipped) || part.closest(".notes, mjx-assistive-mml") || unseen(part)) continue;
    if (left < -1 || top < -1 || right > 1281 || bottom > 721) faults.push(`${title}: ${part.outerHTML.slice(0, 80)} is outside`);
    const words = [...part.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!words || part.closest("mjx-container, style, script, option")) continue;
    const drawn = part.closest("svg") ? part.getScreenCTM() : { a: 1, b: 0 };
    const size = parseFloat(getComputedStyle(part).fontSize) * Math.hypot(drawn.a, drawn.b);
    if (size < 19.9) faults.push(`${title}: “${part.textContent}” has ${size.toFixed(1)} pixels`);
  }
  return faults;
}"""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_slide_fits_the_screen_and_is_read_from_the_last_row(deck, path):
    page, count = deck(path.stem, formulas=True)
    assert count == len(headings(path))
    faults, seen = [], set()
    for _ in range(count):
        seen.add(page.evaluate("Object.values(Reveal.getIndices()).slice(0, 2).join('/')"))
        # what comes by a click has its room from the start
        faults += page.evaluate(FAULTS)
        page.evaluate("() => { while (Reveal.availableFragments().next) Reveal.nextFragment(); Reveal.next(); }")
    assert len(seen) == count
    assert not faults, faults


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_a_deck_prints_a_page_for_each_slide(browser, decks, path):
    page = browser.new_page()
    page.set_default_timeout(120_000)
    pdf = slides.print_pdf(page, decks / f"{path.stem}.html")
    page.close()
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf.read_bytes())) == len(headings(path))


def turn_to(page, figure):
    """Show the slide that has this explorer."""
    figure.evaluate(
        """(figure) => {
          const { h, v } = Reveal.getIndices(figure.closest("section"));
          Reveal.slide(h, v);
        }"""
    )


@pytest.mark.parametrize("name", [name for name, calls in CALLS.items() if calls])
def test_every_explorer_in_a_deck_answers_a_key(deck, name):
    page, _ = deck(name)
    figures = page.locator(".jfb-explorer")
    assert figures.count() == CALLS[name]
    for figure in figures.all():
        turn_to(page, figure)
        dial = figure.locator("input[type=range]:visible").first
        # an explorer that computes its states first has a dial of length zero until then
        page.wait_for_function("each => +each.max > +each.min", arg=dial.element_handle())
        where, before = page.evaluate("Reveal.getIndices()"), figure.inner_html()
        dial.focus()
        full = dial.evaluate("each => each.value === each.max")
        page.keyboard.press("ArrowLeft" if full else "ArrowRight")
        assert figure.inner_html() != before
        assert page.evaluate("Reveal.getIndices()") == where


# where the words of an explorer are longest, or its dials most: the deck, which of its explorers, the dials, the buttons
AT_WORK: list[tuple[str, int, dict[str, object], list[str]]] = [
    ("session-1", 3, {"d": 0.536, "steps": 20}, []),
    ("session-1", 4, {"c": 4, "steps": 40}, []),
    ("session-2", 0, {"x": -0.9, "y": 0, "shear": 4, "terms": 40, "damping": 0.3}, []),
    ("session-2", 2, {"gamma": 0.99, "kappa": 9}, ["worst gradient", "worst Jacobian"]),
    ("session-2", 5, {"rule": "npg"}, ["γ = 3, let go", "Step"]),
    ("06", 1, {"k": 20, "symmetry": 0.3}, ["JFB"]),
    ("13", 0, {"steps": 20}, ["Flip this bit"]),
]


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in AT_WORK))
def test_an_explorer_at_work_still_fits(deck, name):
    page, _ = deck(name)
    for _, which, dials, buttons in (case for case in AT_WORK if case[0] == name):
        figure = page.locator(".jfb-explorer").nth(which)
        turn_to(page, figure)
        before = figure.inner_html()
        for dial, value in dials.items():
            figure.locator(f"[name={dial}]").evaluate(
                """(dial, value) => {
                  dial.value = value;
                  dial.dispatchEvent(new Event(dial.tagName === "SELECT" ? "change" : "input"));
                }""",
                str(value),
            )
        for button in buttons:
            figure.get_by_role("button", name=button, exact=True).click()
        assert figure.inner_html() != before
        assert not page.evaluate(FAULTS)


def test_the_keys_of_a_figure_and_of_a_clicker_do_not_quarrel(deck):
    page, _ = deck("session-1")
    figure = page.locator(".jfb-explorer").first
    turn_to(page, figure)
    number = "Reveal.getSlidePastCount()"
    here = page.evaluate(number)
    steps, button = figure.locator("input[name=steps]"), figure.get_by_role("button", name="+ Step")
    before = int(steps.input_value())
    button.focus()
    page.keyboard.press("Space")
    assert int(steps.input_value()) == before + 1
    assert page.evaluate(number) == here
    # a clicker has the keys page down and page up, whatever the mouse has touched last
    steps.focus()
    page.keyboard.press("PageDown")
    assert page.evaluate(number) == here + 1
    assert int(steps.input_value()) == before + 1
    page.keyboard.press("PageUp")
    steps.focus()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(number) == here + 1


def test_slides_are_read_aloud_and_by_anybody(deck):
    page, _ = deck("session-1")
    for kind in (".deck-answered", ".deck-explorer", ".deck-table"):
        turn_to(page, page.locator(kind).first)
        assert not grave_violations(page), kind
    assert page.locator(".deck-right .deck-spoken").count() == page.locator(".deck-answered").count() > 0
    assert page.locator("img:not([alt])").count() == 0


# The plan, and the deck


@pytest.mark.parametrize("path", chapters.notebooks(), ids=lambda path: path.stem)
def test_every_chapter_has_a_deck_with_a_vote_and_a_figure(path):
    number = re.match(r"(\d\d)-", path.stem)
    if number:
        deck = BOOK / "course" / "slides" / f"{number[1]}.md"
        assert deck.is_file(), f"chapter {number[1]} has no deck"
        text = deck.read_text()
        assert text.startswith("# ")
        assert 7 <= len(headings(deck)) <= 20
        for part in ("picture", "vote", "notes"):
            assert f"{{{part}}}" in text, part


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_a_session_has_the_blocks_and_the_votes_of_its_plan(path):
    plan, deck = (BOOK / "course" / path.name).read_text(), path.read_text()
    clocks = re.findall(r"^:+\{notes\} (\d\d:\d\d)(–.+)?$", deck, re.MULTILINE)
    assert [now + rest for now, rest in clocks if rest] == re.findall(r"^## (\d\d:\d\d–.+)$", plan, re.MULTILINE)
    assert [now for now, _ in clocks] == sorted(now for now, _ in clocks)
    # every slide has a clock
    assert len(clocks) == len(headings(path))
    votes = re.findall(r"^### (Vote \d)", plan, re.MULTILINE)
    asked = re.findall(r"^:+\{vote\} (Vote \d)\n(:answer:)?", deck, re.MULTILINE)
    assert asked == [(vote, answer) for vote in votes for answer in ("", ":answer:")]


def test_the_speaker_sees_the_minutes_of_the_plan(decks):
    for path in SESSIONS:
        html = (decks / f"{path.stem}.html").read_text()
        seconds = [int(found) for found in re.findall(r'data-timing="(\d+)"', html)]
        last = re.findall(r"^:+\{notes\} (\d\d):(\d\d)", path.read_text(), re.MULTILINE)[-1]
        assert sum(seconds) == 60 * (60 * int(last[0]) + int(last[1]))
        assert html.count('<aside class="notes">') == len(seconds) + 1
        assert "\\gamma" not in "".join(re.findall(r'<aside class="notes">.*?</aside>', html))


# What a deck takes from the book


MISSING = {
    ":::{picture} fig-05-none\n:::": "{picture} fig-05-none is not in the book: no chapter draws a figure of this name",
    ":::{theorem} theorem-none\n:::": "{theorem} theorem-none is not in the book: no chapter has a theorem of this label",
    ":::{equation} jfb-0\n:::": "{equation} jfb-0 is not in the book: no chapter has a formula with this target",
    ":::{claim} jfb-none\n:::": "{claim} jfb-none is not in the book: no chapter checks a claim of this name",
    "{value}`05/none`": "{value} 05/none is not in the book: no cell of chapter 05 names this value",
    "{value}`up`": "{value} up is not in the book: write chapter and name, as in 05/up",
    "{exercise}`ex-05-none`": "{exercise} ex-05-none is not in the book: no chapter has an exercise of this label",
    ":::{stored-table} A table that is none\n:::": "no chapter shows a table with this caption",
    ":::{printed} no-such-heading\n:::": "under no heading with this anchor does a chapter print anything",
    ":::{shown-code} u = guess(data)\n:::": "no visible cell of a chapter starts so",
    ":::{explorer} explorers.cobweb(d=0.9)\n:::": "no chapter shows an explorer by this call",
    ":::{vote} Vote 9\n:::": "session-1.md has no vote of this name",
    ":::{vote} quiz-05-none\n:::": "there is no question of this name",
    ":::{notes} 00:08–00:26 Cobweb, two votes\n:::": "session-1.md has no block with this heading",
    ":::{notes} soon\n:::": "write 00:08, or a block of the plan as its heading has it",
}


def test_a_name_that_is_nowhere_fails_and_says_where(small_deck):
    said = small_deck(*(f"## Slide {number}\n\n{part}" for number, part in enumerate(MISSING)))
    for number, message in enumerate(MISSING.values()):
        assert re.search(rf"session-1, slide “Slide {number}”: .*{re.escape(message)}", said), (number, message, said)


def test_what_changes_in_a_chapter_changes_in_the_slide(small_deck, monkeypatch, tmp_path):
    copy = tmp_path / "book"
    (copy / "course").mkdir(parents=True)
    shutil.copy(BOOK / "course" / "session-1.md", copy / "course")
    chapter = json.loads((BOOK / "01-output-defined-by-an-equation.ipynb").read_text())
    for cell in chapter["cells"]:
        for output in cell.get("outputs", []):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == "radius":
                data = output["data"]
                data.update({kind: "0.7777" for kind in data if kind.endswith("text/plain")})
        cell["source"] = [
            line.replace("converge to a fixed point", "arrive at a fixed point") for line in cell["source"]
        ]
    (copy / "01-output-defined-by-an-equation.ipynb").write_text(json.dumps(chapter))
    parts = "## A slide\n\n{value}`01/radius`\n\n:::{theorem} lemma-F1\n:::\n\n:::{picture} fig-01-fold\n:::"
    before = small_deck(parts)
    assert "<p>0.5350</p>" in before
    assert "converge to a fixed point" in before
    monkeypatch.setattr(chapters, "BOOK", copy)
    after = small_deck(parts)
    assert "<p>0.7777</p>" in after
    assert "<p>0.5350</p>" not in after
    assert "arrive at a fixed point" in after
    # a copy without drawings has the picture that the cell has stored
    assert "fig-01-fold.svg" in before
    assert "fig-01-fold.png" in after


def test_words_of_a_chapter_lead_nowhere_else():
    path = next(path for path in chapters.notebooks() if path.stem.startswith("05"))
    text = "a [descent [direction]](#term-x), {cite}`fung2022jfb` {prf:ref}`One <theorem-layer>`, {glue:text}`up`"
    up = chapters.named_values(path)["up"]
    assert slide_sources.plain(path, text) == f"a descent [direction], One, {up}"


def test_a_clock_that_goes_back_is_found(small_deck):
    said = small_deck("## One\n\n:::{notes} 00:10\n:::", "## Two\n\n:::{notes} 00:05\n:::")
    assert "the clock of a slide goes back, from minute 10 to 5" in said


def test_a_deck_lies_with_what_it_needs_and_nothing_more(decks):
    files = {str(path.relative_to(decks)) for path in decks.rglob("*") if path.is_file()}
    expected = {f"{name}.html" for name in NAMES} | {"_static/deck.css", "_static/deck.js"}
    expected |= {f"_static/revealjs/{name}" for name in slides.KEPT}
    others = {
        name for name in files - expected if not name.startswith(("mathjax/", "_pictures/")) and name[-4:] != ".pdf"
    }
    assert not others
    assert expected <= files
    for name in NAMES:
        html = (decks / f"{name}.html").read_text()
        for target in re.findall(r'(?:src|href)="([^"#]+)"', html):
            assert (decks / target.partition("?")[0]).is_file(), target
