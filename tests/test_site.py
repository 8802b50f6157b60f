"""The built site in a real browser, opened from disk with the network cut."""

import json
import re
import time

import pytest
from conftest import BOOK, NOTEBOOKS, ROOT, grave_violations, match, pages

from jfb_tutorial.pages import explorers

CHAPTER = NOTEBOOKS[0].stem + ".html"
PAGES = [
    "index.html",
    *(path.stem + ".html" for path in NOTEBOOKS),
    *(path.stem + ".html" for path in BOOK.glob("*.md")),
    *(f"course/{name}.html" for name in ("README", "session-1", "notes/05")),
]
PAGES = sorted({*PAGES, "search.html"})


def settle(page):
    """Wait until the formulas are set and the theme has run."""
    page.wait_for_load_state("load")
    page.wait_for_function("!document.querySelector('.math') || document.querySelector('mjx-container')")
    page.evaluate("window.MathJax?.startup?.promise")


def show_theme(page, scheme):
    """Let the system's preference change, as at dusk; the page follows without being loaded again."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("(scheme) => document.documentElement.dataset.theme === scheme", arg=scheme)
    # what folds out or changes its colour fades, and a half-faded text has half its contrast
    page.evaluate("Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => null)))")


@pytest.fixture(scope="module", params=PAGES)
def read_page(request, browser, site):
    """A page, opened once for the tests that only look at it: that takes seconds. pytest goes page by page."""
    with pages(browser) as open_file:
        page = open_file(site / request.param, scheme="light")
        settle(page)
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        yield page


def resize(page, width):
    """Change the width, and wait until the theme has answered: it gives what now scrolls a tab stop, after 300 ms."""
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 400)))")


OPEN_ALL = "document.querySelectorAll('details').forEach((details) => { details.open = true; })"


def is_chapter(page):
    return re.search(r"/\d\d-[^/]*\.html", page.url)


@pytest.mark.parametrize(("width", "schemes"), [(1280, ["light", "dark"]), (390, ["dark"])])
def test_no_serious_accessibility_violation(read_page, width, schemes):
    resize(read_page, width)
    read_page.evaluate(OPEN_ALL)
    for number, scheme in enumerate(schemes):
        show_theme(read_page, scheme)
        # a second theme changes the colours alone
        grave = grave_violations(read_page, "color-contrast" if number else "")
        assert not grave, f"{scheme}:\n" + "\n".join(grave)


@pytest.mark.parametrize("width", [390, 320])
def test_no_page_is_wider_than_a_phone(read_page, width):
    resize(read_page, width)
    assert read_page.evaluate("document.documentElement.scrollWidth") <= width
    read_page.evaluate(OPEN_ALL)
    assert read_page.evaluate("document.documentElement.scrollWidth") <= width


def test_formulas_are_set(read_page):
    assert read_page.locator("mjx-merror, [data-mjx-error]").count() == 0
    if is_chapter(read_page):
        assert read_page.locator("mjx-container").count() > 50
        assert read_page.locator(".bd-article mjx-container").first.bounding_box()["height"] > 5


def test_pictures_are_shown_and_described(read_page):
    images = read_page.locator(".cell_output img")
    assert images.count() >= 1 or not is_chapter(read_page)
    for image in images.all():
        assert len(image.get_attribute("alt")) >= 20
        image.scroll_into_view_if_needed()
        assert image.evaluate("(img) => img.decode().then(() => img.naturalWidth)") > 500


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_in_the_dark_for_who_prefers_it(open_page, site, name):
    page = open_page(site / name, scheme="dark", formulas=False)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_search_finds_the_chapter(open_page, site):
    page = open_page(site / "search.html", query="?q=cobweb")
    page.locator("#search-results li a").first.wait_for()
    assert any(CHAPTER in (link.get_attribute("href") or "") for link in page.locator("#search-results li a").all())


def test_the_ledger_links_to_every_claim(open_page, site):
    page = open_page(site / "claims.html")
    targets = [link.get_attribute("href") for link in page.locator("table a.reference").all()]
    shown = [json.loads(path.read_text()) for path in NOTEBOOKS]
    count = sum("vnd.jfb-tutorial.claim+json" in json.dumps(cell) for notebook in shown for cell in notebook["cells"])
    assert len(targets) == count > 8
    for target in targets:
        name, anchor = target.split("#")
        assert f'id="{anchor}"' in (site / name).read_text()


def test_a_link_to_a_claim_opens_its_box(open_page, site):
    box = 'details:has([id="jfb-lemma-F.1"])'
    assert not open_page(site / CHAPTER, formulas=False).locator(box).evaluate("(details) => details.open")
    page = open_page(site / CHAPTER, formulas=False, query="#jfb-lemma-F.1")
    page.locator(f"{box}[open]").wait_for()


def test_the_contraction_explorer_answers_to_the_keyboard(open_page, site):
    figure = open_page(site / "02-contractions.html", formulas=False).get_by_role(
        "group", name=re.compile("^Contraction explorer")
    )
    words = figure.locator(".jfb-words")
    assert "No contraction, and yet it converges" in words.inner_text()
    figure.get_by_role("slider", name=re.compile("non-normality")).press("Home")
    assert "each step multiplies every distance by 0.671" in words.inner_text()


def test_no_page_names_a_place_on_this_machine(site):
    for path in site.glob("*.html"):
        assert str(ROOT) not in path.read_text(), path.name


MENDED = {  # what ours writes, and the theme's fault that it stands for; see book/_ext/theme_faults.py and book/_templates
    "table": (r'<table tabindex="0" class="jfb-wide table">', r'<table(?! tabindex="0")[^>]* class="jfb-wide'),
    "fold": (r"<summary>\s*<p class=\"collapsed", r"<summary [^>]*>\s*<p class=\"collapsed"),
    "citations": (r'<div class="citation-list">', r'role="list" class="citation-list"'),
    "colour mode": (
        r'<i aria-hidden="true" class="theme-switch ',
        r'<i class="theme-switch |class="theme-switch [^>]*title=',
    ),
    "search": (
        r'<button class="btn search-button-field (?![^>]*(title|aria-label)=)',
        r'<button class="btn search-button-field [^>]*(title|aria-label)=',
    ),
    "toggles": (
        r'<summary aria-label="Pages below"><span class="toctree-toggle"',
        r'<summary>\s*<span class="toctree-toggle"',
    ),
    "Thebe": (r"<script", r"<(script|link)[^>]*(src|href)=[^>]*thebe|initThebe"),
}


@pytest.mark.parametrize("name", MENDED)
def test_the_faults_of_the_theme_are_mended(site, name):
    mend, fault = map(re.compile, MENDED[name])
    pages = sorted([*site.glob("*.html"), *site.glob("course/**/*.html")])
    texts = {path.relative_to(site).as_posix(): path.read_text() for path in pages}
    assert any(mend.search(text) for text in texts.values()), "the markup has changed: is there still a fault to mend?"
    assert [page for page, text in texts.items() if fault.search(text)] == []


def explorer(page):
    return page.locator('.jfb-explorer[data-explorer="cobweb"]').first


@pytest.mark.parametrize("name", ["index.html", CHAPTER])
def test_the_cobweb_by_keyboard(open_page, site, name):
    page = open_page(site / name)
    figure = explorer(page)
    words, web = figure.locator(".jfb-words"), figure.locator(".jfb-web")
    before = words.inner_text(), web.get_attribute("d")

    figure.get_by_role("slider").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert words.inner_text() != before[0]
    assert web.get_attribute("d") != before[1]
    assert "crosses the diagonal" in words.inner_text()

    page.keyboard.press("End")  # d = 0.7: no fixed point, and the iterates leave
    assert "no fixed point is left" in words.inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    assert figure.get_by_role("slider", name="start y₀ = 0.000").count() == 1
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert "has escaped: at step 4" in words.inner_text()
    assert figure.get_by_role("slider", name="steps = 60").input_value() == "60"

    page.keyboard.press("Tab")  # the first button
    page.keyboard.press("Enter")
    assert figure.get_by_role("slider", name="steps = 59").count() == 1
    figure.get_by_role("button", name="Start over").press("Enter")
    assert figure.get_by_role("slider", name="steps = 0").count() == 1


def test_the_cobweb_computes_what_the_package_does(open_page, site):
    from jfb_tutorial import toy

    figure = explorer(open_page(site / CHAPTER, formulas=False))
    figure.locator("summary").click()
    cells = figure.locator("tbody tr td:nth-child(2)").all_inner_texts()
    y = toy.iterate(0.5, len(cells) - 1, y0=0.7)
    assert [float(cell) for cell in cells] == pytest.approx(y.tolist(), abs=1e-6)
    crossing = match(r"y\* = ([\d.]+)", figure.locator(".jfb-words").inner_text()).group(1)
    assert float(crossing) == pytest.approx(toy.solve(0.5).item(), abs=1e-6)


@pytest.mark.parametrize("touch", [False, True])
def test_the_cobweb_by_pointer(open_page, site, touch):
    page = open_page(site / CHAPTER, formulas=False, width=390 if touch else 1280, touch=touch)
    figure = explorer(page)
    handle = figure.locator(".jfb-handle").first
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert min(box["width"], box["height"]) >= 24
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    slider = figure.get_by_role("slider").first
    before = float(slider.input_value())
    at_start = figure.get_by_role("slider").nth(1).input_value()
    if touch:
        session = page.context.new_cdp_session(page)
        for kind, points in (("touchStart", [(x, y)]), ("touchMove", [(x, y + 40)]), ("touchEnd", [])):
            session.send(
                "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]}
            )
    else:
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x, y + 40, steps=4)
        page.mouse.up()
    assert float(slider.input_value()) < before - 0.03
    assert figure.get_by_role("slider").nth(1).input_value() == at_start


def test_at_zero_both_dots_can_be_grasped(open_page, site, tmp_path):
    page_file = tmp_path / "zero.html"
    markup = explorers.cobweb(d=0, y0=0, steps=2)._repr_html_()
    page_file.write_text(f'<!doctype html><html lang="en"><title>zero</title><body>{markup}</body></html>')
    page = open_page(page_file)
    figure = explorer(page)
    assert "slope 0: near it the error is raised to the fifth power" in figure.locator(".jfb-words").inner_text()
    for number, (dx, dy) in enumerate([(0, -40), (40, 0)]):  # d goes up, the start goes right
        box = figure.locator(".jfb-handle").nth(number).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + dx, y + dy, steps=4)
        page.mouse.up()
        assert float(figure.get_by_role("slider").nth(number).input_value()) > 0.05


def test_the_fold_explorer_follows_d(open_page, site):
    page = open_page(site / CHAPTER, formulas=False)
    figure = page.get_by_role("group", name=re.compile("^Fold explorer"))
    assert figure.locator("svg").count() == 2
    slider = figure.get_by_role("slider").first
    slope = []
    for d in ("0.5", "0.53", "0.534"):
        slider.fill(d)
        slope.append(
            float(match(r"dy/dd = 1/\(1 − 5y⁴\) = (\d+\.?\d*)", figure.locator(".jfb-words").inner_text()).group(1))
        )
    assert slope[0] == pytest.approx(1.85, abs=0.01)
    assert slope[0] < slope[1] < slope[2] > 7
    slider.fill("0.536")
    assert "lifted off" in figure.locator(".jfb-words").inner_text()


def test_the_cobweb_runs_by_itself_unless_motion_is_unwelcome(open_page, site):
    figure = explorer(open_page(site / CHAPTER, formulas=False, motion="reduce"))
    figure.get_by_role("button", name="Run").click()
    assert figure.get_by_role("slider", name="steps = 60").count() == 1  # at once
    figure = explorer(open_page(site / CHAPTER, formulas=False))
    figure.get_by_role("button", name="Run").click()
    assert figure.get_by_role("button", name="Pause").count() == 1
    counter = figure.get_by_role("slider").nth(2)
    deadline = time.monotonic() + 20
    while int(counter.input_value()) < 8:
        assert time.monotonic() < deadline
    figure.get_by_role("button", name="Pause").click()
    assert figure.get_by_role("button", name="Run").count() == 1


def test_the_cobweb_says_everything_without_colour_or_script(open_page, site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / CHAPTER).as_uri())
    assert "go up to the curve" in explorer(page).locator(".jfb-words").inner_text()
    context.close()


def test_the_cobweb_works_where_a_notebook_inserts_it(inserted_twice):
    figures = inserted_twice(explorers.cobweb(d=0.4))
    figures.nth(1).get_by_role("button", name="+ Step").click()
    assert figures.nth(1).get_by_role("slider", name="steps = 7").count() == 1
    assert figures.nth(0).get_by_role("slider", name="steps = 6").count() == 1
