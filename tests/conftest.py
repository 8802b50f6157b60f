"""What several tests share: the built site, and a real browser that cannot reach any other host."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path.insert(0, str(BOOK / "_ext"))
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if path.stem[:2].isdigit()]  # the others are guides

# examples are drawn the same way in every run, and a busy machine's slowness is not a failure
settings.register_profile("book", derandomize=True, deadline=None)
settings.load_profile("book")


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    """What a test leaves open is not counted among the next one's figures, whichever that is."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = yield
    if os.environ.get("REFUSE_SKIPS"):
        refuse_skip(report, may_skip=item.get_closest_marker("cuda") is not None)
    return report


def refuse_skip(report: pytest.TestReport, *, may_skip: bool) -> None:
    """In CI a test that was skipped has failed, unless what it needs is a GPU."""
    # an expected failure counts as skipped too, and has `wasxfail`
    if report.skipped and not may_skip and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI refuses: {report.longrepr}"


@pytest.fixture
def gpu() -> torch.device:
    """An NVIDIA GPU. Without one the test is skipped by name; with CUDA_TESTS_ON=cpu it is made on the CPU, to try what it does."""
    name = os.environ.get("CUDA_TESTS_ON", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(name)


@pytest.fixture(scope="session")
def browser():
    """A Chromium. Without one the test is skipped by name."""
    import chromium  # of book/_ext

    if chromium.find() is None:
        pytest.skip("no Chromium found: install one, or name it in the environment variable CHROMIUM")
    with chromium.launched() as browser:
        yield browser


def build_command(book: Path) -> list[str]:
    """What builds a book, with warnings as errors."""
    tool = Path(sys.executable).with_name("jupyter-book")
    return [str(tool), "build", str(book), "-W", "-n", "--keep-going", "-q"]


@pytest.fixture(scope="session")
def site() -> Path:
    """The built site; `make test` builds it anew, a bare pytest builds it if it is not there."""
    html = BOOK / "_build" / "html"
    if not (html / "index.html").exists():
        subprocess.run(build_command(BOOK), check=True, cwd=ROOT)
    return html


MATHJAX = "**/mathjax/**"

# Pages that earlier tests opened and are done with, for a hand or for a mouse, each with its list of problems. To load a file in
# one of them takes a quarter of the time that a new context and its process of the browser take.
SPARE: dict[bool, list[tuple[Any, list[str]]]] = {True: [], False: []}


@contextmanager
def pages(browser) -> Iterator[Callable]:
    """A function that opens a file in a page; at the end fails if one asked another host for anything or threw an error.

    To set a chapter's formulas takes twice as long as all the rest of it; a test that needs none says `formulas=False`.
    """
    taken = []

    def open_file(
        path: Path,
        *,
        width=1280,
        height=900,
        scheme="light",
        motion="no-preference",
        touch=False,
        query="",
        formulas=True,
    ):
        page, problems = SPARE[touch].pop() if SPARE[touch] else new_page(browser, touch)
        taken.append((touch, page, problems))
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme, reduced_motion=motion)
        if not formulas:
            page.route(MATHJAX, lambda route: route.fulfill(content_type="text/javascript", body=""))
        page.goto(path.as_uri() + query)
        return page

    yield open_file
    for _, page, _ in taken:
        page.evaluate("localStorage.clear(); sessionStorage.clear()")
        page.mouse.move(0, 0)
        page.unroute(MATHJAX)
        page.goto("about:blank")  # nothing runs on, and the next file is loaded as in a new page
    found = [problem for _, _, problems in taken for problem in problems]
    for touch, page, problems in taken:
        problems.clear()
        SPARE[touch].append((page, problems))
    assert not found, found


def new_page(browser, touch: bool) -> tuple[Any, list[str]]:
    problems: list[str] = []
    page = browser.new_context(has_touch=touch).new_page()
    page.set_default_timeout(120_000)  # milliseconds; a busy machine's slowness is not a failure
    watch(page, problems)
    return page, problems


def watch(page, problems: list[str]) -> None:
    """Cut the page from the network, and note what it asks for there and what errors it has."""

    def guard(route):
        url = route.request.url
        if url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            problems.append(f"request to {url}")
            route.abort()

    def note_error(message):
        if message.type == "error":
            problems.append(f"console: {message.text}")

    page.route("**/*", guard)
    page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
    page.on("console", note_error)


@pytest.fixture
def open_page(browser):
    """Opens a file in a page without a past; fails at the end if it asked another host for anything or threw an error."""
    with pages(browser) as open_file:
        yield open_file


@cache
def axe() -> str:
    return (ROOT / "tests" / "data" / "axe" / "axe.min.js").read_text()


def grave_violations(page, rule: str = "") -> list[str]:
    """What axe-core finds serious or critical on a page, by one of its rules or by all, each with the elements concerned."""
    if not page.evaluate("'axe' in window"):  # once a page: it is half a megabyte
        page.evaluate(axe())
    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": [rule]} if rule else {})
    violations = page.evaluate("(options) => axe.run(document, options).then((result) => result.violations)", options)
    return [
        f"{violation['id']}: {violation['help']}: {[node['html'][:200] for node in violation['nodes'][:4]]}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]


# What the tests of the explorers share


@pytest.fixture
def show_explorers(open_page, tmp_path):
    """Opens a page with these explorers and nothing else, from disk; returns the first figure."""

    def show(*figures, dark=False, width=1280, motion="no-preference", touch=False):
        page_file = tmp_path / f"{len(list(tmp_path.iterdir()))}.html"
        look = "background: #121212; color: #ddd" if dark else "background: #fff; color: #222"
        markup = "".join(figure._repr_html_() for figure in figures)
        page_file.write_text(
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f'<title>explorer</title><body style="{look}; font: 16px sans-serif"><main><h1>Explorer</h1>'
            f'{markup}<div style="height: 900px"></div></main></body></html>'
        )
        page = open_page(page_file, width=width, motion=motion, touch=touch)
        if dark:
            page.evaluate("document.documentElement.dataset.theme = 'dark'")
        return page.locator(".jfb-explorer").first

    return show


@pytest.fixture
def inserted_twice(open_page, tmp_path):
    """The figures of a page into which the HTML is put as Jupyter and Colab put an output: the scripts run as new elements."""

    def insert(explorer):
        page_file = tmp_path / "notebook.html"
        markup = json.dumps(explorer._repr_html_()).replace("</", "<\\/")
        page_file.write_text(
            f"""<!doctype html><html lang="en"><title>output</title><body><div></div><div></div><script>
            for (const host of document.querySelectorAll("div")) {{
              host.innerHTML = {markup};
              host.querySelectorAll("script").forEach((old) => {{
                const script = document.createElement("script");
                script.textContent = old.textContent;
                old.replaceWith(script);
              }});
            }}</script></body></html>"""
        )
        figures = open_page(page_file).locator(".jfb-explorer")
        assert figures.count() == 2
        return figures

    return insert


@pytest.fixture
def words_without_script(browser, tmp_path):
    """What an explorer says in a page that runs no script."""

    def read(explorer):
        page_file = tmp_path / "plain.html"
        page_file.write_text(f"<!doctype html><meta charset=utf-8><body>{explorer._repr_html_()}</body>")
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(page_file.as_uri())
        text = words(page)
        context.close()
        return text

    return read


def pull(page, start: tuple[float, float], end: tuple[float, float], *, touch: bool) -> None:
    """Press at one place of the page, move to another, and let go; by mouse or by touch."""
    if touch:
        session = page.context.new_cdp_session(page)
        for kind, points in (("touchStart", [start]), ("touchMove", [end]), ("touchEnd", [])):
            fingers = [{"x": x, "y": y} for x, y in points]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        return
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()


def grip(figure, which: int) -> tuple[float, float]:
    """The middle of a handle of an explorer, which is wide enough for a finger."""
    handle = figure.locator(".jfb-handle").nth(which)
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert min(box["width"], box["height"]) >= 24
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(figure, which: int, dx: float, dy: float, *, touch: bool) -> None:
    """Take a handle and move it by so many pixels."""
    x, y = grip(figure, which)
    pull(figure.page, (x, y), (x + dx, y + dy), touch=touch)


def at_settings(figure, settings: list, read: str) -> list:
    """What the JavaScript `read`, a function of the figure, says at each setting of the sliders; all in one round to the page."""
    return figure.evaluate(
        """(figure, settings) => settings.map((setting) => {
          for (const [name, value] of Object.entries(setting)) {
            const input = figure.querySelector(`input[name="${name}"]`);
            input.value = value;
            input.dispatchEvent(new Event("input"));
          }
          return (READ)(figure);
        })""".replace("READ", read),
        settings,
    )


def ready(figure, timeout: int = 60_000):
    """The figure, when it has done its computing."""
    figure.page.wait_for_selector('.jfb-explorer[data-busy="no"]', timeout=timeout)
    return figure


def rows(figure) -> list[list[str]]:
    """The cells of an explorer's table."""
    return figure.evaluate(
        "(f) => [...f.querySelectorAll('tbody tr')].map((r) => [...r.children].map((c) => c.textContent))"
    )


@pytest.fixture
def float64():
    """The default dtype of the chapters, while the test runs."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def match(pattern: str, text: str) -> re.Match[str]:
    """Where the pattern is in a text, in which it must be."""
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is nowhere in {text!r}"
    return found


def words(figure):
    """What an explorer says, without the joiners that keep it from breaking."""
    return figure.locator(".jfb-words").inner_text().replace("\u2060", "")


def slider(figure, name):
    return figure.locator(f'input[name="{name}"]')


def number(text):
    """A number as an explorer writes it."""
    text = text.replace("−", "-").replace("∞", "inf")
    if "·10" in text:
        mantissa, exponent = text.split("·10")
        return float(mantissa) * 10.0 ** int(exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))
    return float(text)
