"""A chapter printed from the browser: its text and nothing to click, all folds open, nothing cut off."""

import re

import pytest

CHAPTER = "05-jacobian-free-backpropagation.html"
HIDDEN = (
    "#pst-primary-sidebar",
    ".bd-header-article",
    ".prev-next-footer",
    "button.copybtn",
    ".headerlink",
    ".jfb-controls",
    "#pst-back-to-top",
)


@pytest.fixture(scope="module")
def paper(browser, site):
    """A chapter as it is laid out on A4, after the event that a browser sends before it prints."""
    page = browser.new_page(viewport={"width": 680, "height": 960}, color_scheme="dark")
    page.set_default_timeout(120_000)
    page.route("**/mathjax/**", lambda route: route.fulfill(content_type="text/javascript", body=""))
    page.goto((site / CHAPTER).as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    yield page
    page.close()


def test_there_is_nothing_to_click(paper):
    for selector in HIDDEN:
        assert (
            paper.locator(selector).evaluate_all("(all) => all.filter((one) => one.checkVisibility()).length") == 0
        ), selector


def test_folds_are_open(paper):
    assert paper.locator(".bd-article details").count() > 20
    assert paper.locator(".bd-article details:not([open])").count() == 0
    for inside in (".solution p", ".jfb-claim td", ".cell_input pre", ".jfb-explorer svg"):
        elements = paper.locator(f".bd-article {inside}")
        assert elements.evaluate_all("(all) => all.every((one) => one.getBoundingClientRect().height > 0)"), inside
        assert elements.count() > 0


def test_what_unfolds_is_seen_at_once(paper):
    """A browser prints the first moment of what fades in: nothing."""
    faded = paper.locator(".bd-article details *").evaluate_all(
        """(all) => all.filter((one) => {
          const style = getComputedStyle(one);
          return one.checkVisibility() && (style.animationName !== "none" || style.opacity === "0");
        }).length"""
    )
    assert faded == 0


def test_no_code_and_no_table_is_cut_off(paper):
    cut = paper.evaluate(
        """[...document.querySelectorAll(".bd-article :is(pre, div.highlight, table)")].filter((one) => {
          const box = one.getBoundingClientRect();
          return box.right > document.documentElement.clientWidth + 1 || one.scrollWidth > one.clientWidth + 1;
        }).map((one) => one.textContent.trim().slice(0, 60))"""
    )
    assert cut == []


def test_it_is_dark_on_white_whatever_the_theme(paper):
    assert paper.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for element in (".bd-article p", ".bd-article pre span", ".bd-article h2"):
        colour = paper.locator(element).first.evaluate("(one) => getComputedStyle(one).color")
        assert max(map(int, re.findall(r"\d+", colour)[:3])) < 140, f"{element}: {colour}"
    filters = paper.locator(".cell_output img").evaluate_all("(all) => all.map((one) => getComputedStyle(one).filter)")
    assert set(filters) == {"none"}


def test_after_printing_the_folds_are_as_they_were(paper):
    paper.evaluate("dispatchEvent(new Event('afterprint'))")
    assert paper.locator(".bd-article details:not([open])").count() > 20
