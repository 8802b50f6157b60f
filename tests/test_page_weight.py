"""What a page of the site loads: no more than 1.5 MB of its own, and nothing moves while it comes."""

import re
from pathlib import Path

import page_weight
import pytest
from conftest import BOOK, match

MOST = 1_500_000
"""Bytes of a page's own: its HTML with what is written into it, its pictures, its scripts. The theme and MathJax are everybody's."""
SHARED = re.compile(r"_static/(?!late/)|mathjax/|searchindex\.js")


def loaded(page: Path) -> dict[Path, int]:
    """The files that a page names as its pictures, scripts and styles, and itself, each with its size."""
    text = page.read_text()
    addresses = re.findall(r"<(?:img|script|source|iframe)\b[^>]*?\ssrc=\"([^\"]+)\"", text)
    addresses += re.findall(r'<link\b[^>]*?href="([^"]+)"[^>]*?rel="stylesheet"', text)
    addresses += re.findall(r'<link\b[^>]*?rel="stylesheet"[^>]*?href="([^"]+)"', text)
    files = {(page.parent / address.partition("?")[0]).resolve() for address in addresses if ":" not in address}
    return {page.resolve(): page.stat().st_size} | {file: file.stat().st_size for file in files}


def own(site: Path, page: Path) -> int:
    """The bytes of a page that no other page shares."""
    return sum(
        size for file, size in loaded(page).items() if not SHARED.match(file.relative_to(site.resolve()).as_posix())
    )


def test_no_page_weighs_more_than_a_megabyte_and_a_half(site):
    pages = [page for page in site.rglob("*.html") if "_static" not in page.parts]
    weights = {page.relative_to(site).as_posix(): own(site, page) for page in pages}
    assert {name: weight for name, weight in weights.items() if weight > MOST} == {}
    # the measure sees pictures and what is written into a page
    chapter = next(site.glob("10-*.html"))
    assert weights[chapter.name] > chapter.stat().st_size + 500_000


def test_what_all_pages_share_is_less_than_two_megabytes_and_a_half(site):
    page = site / "index.html"
    shared = sum(loaded(page).values()) - own(site, page)
    assert 1_000_000 < shared < 2_500_000


def test_every_icon_that_a_page_names_is_drawn(open_page, site):
    page = open_page(site / "02-contractions.html", formulas=False)
    page.wait_for_function("document.querySelectorAll('i[class*=fa-]').length === 0")
    drawn = page.evaluate(
        "[...document.querySelectorAll('svg.svg-inline--fa')].map((s) => [s.dataset.icon, s.querySelector('path')?.getAttribute('d') ?? ''])"
    )
    assert len(drawn) > 8
    # Font Awesome draws an icon that it does not have as a question mark that blinks
    assert [icon for icon, path in drawn if len(path) < 20 or icon == "missing"] == []


ICONS = 'var p={monero:[496,512,[],"f3d0","M3 3z"],"turn-up":[384,512,[10548,"level-up-alt"],"f3bf","M3 1z"],both:[1,2,[],"f0",["M1","M2"]]};'


@pytest.mark.parametrize(
    ("named", "left"),
    [
        ({"monero"}, 'var p={monero:[496,512,[],"f3d0","M3 3z"]};'),
        ({"level-up-alt"}, 'var p={"turn-up":[384,512,[10548,"level-up-alt"],"f3bf","M3 1z"]};'),
        ({"monero", "both"}, 'var p={monero:[496,512,[],"f3d0","M3 3z"],both:[1,2,[],"f0",["M1","M2"]]};'),
        (set(), "var p={};"),
    ],
)
def test_icons_that_nothing_names_are_left_out(named, left):
    assert page_weight.slim(ICONS, named) == left


def test_a_heavy_explorer_waits_until_it_is_asked_for(open_page, site):
    page = open_page(next(site.glob("10-*.html")), formulas=False)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    figure = page.locator(".jfb-explorer[data-explorer='equilibrium']")
    words = figure.locator(".jfb-words")
    assert "A trained network runs in this page" in words.inner_text()
    button = figure.get_by_role("button", name="Load the network")
    assert 1 < float(match(r"\(([\d.]+) MB\)", button.inner_text())[1]) < 3
    assert not any("/late/" in url for url in asked)
    button.press("Enter")
    page.wait_for_function(
        "document.querySelector('.jfb-explorer[data-explorer=equilibrium] .jfb-words').innerText.includes('Picture 1 of')"
    )
    assert [url.rpartition("/")[2] for url in asked if "/late/" in url] == ["10-cifar-10-equilibrium.js"]
    assert button.count() == 0
    # the keyboard is where it was, in the figure
    assert figure.evaluate("(figure) => figure.contains(document.activeElement)")
    figure.get_by_role("button", name="Next picture").click()
    page.wait_for_function(
        "document.querySelector('.jfb-explorer[data-explorer=equilibrium] .jfb-words').innerText.includes('Picture 2 of')"
    )


def test_a_light_explorer_is_there_at_once(site):
    for name in ("index.html", "13-what-an-equilibrium-is-for.html"):
        assert "data-late" not in (site / name).read_text()
    assert (BOOK / "_static" / "late.js").is_file()


SHIFTS = """window.moved = 0;
new PerformanceObserver((list) => { for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.moved += entry.value; })
  .observe({ type: "layout-shift", buffered: true });"""


@pytest.mark.parametrize(("name", "width"), [("index.html", 390), ("05-jacobian-free-backpropagation.html", 1280)])
def test_nothing_that_is_seen_moves_while_a_page_comes(browser, site, name, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(120_000)
    page.add_init_script(SHIFTS)
    page.goto((site / name).as_uri())
    page.evaluate("window.MathJax?.startup?.promise")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 300)))")
    moved = page.evaluate("window.moved")
    # the sum that browsers report; below 0.1 is called good
    assert moved < 0.1
    # the measure sees what moves
    page.evaluate(
        "document.querySelector('.bd-article').insertAdjacentHTML('afterbegin', '<p style=\"height: 500px\">here</p>')"
    )
    page.wait_for_function("(before) => window.moved > before + 0.1", arg=moved)
    page.close()
