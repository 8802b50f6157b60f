"""What several tests share: the built site, and a real browser that cannot reach any other host."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("[0-9][0-9]-*.ipynb"))

# examples are drawn the same way in every run, and a busy machine's slowness is not a failure
settings.register_profile("book", derandomize=True, deadline=None)
settings.load_profile("book")


def find_chromium() -> str | None:
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser():
    """A Chromium. Without one the test is skipped by name, unless REQUIRE_BROWSER is set: then it fails."""
    path = find_chromium()
    if path is None:
        message = "no Chromium found: install one, or name it in the environment variable CHROMIUM"
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def site() -> Path:
    """The built site; `make test` builds it anew, a bare pytest builds it if it is not there."""
    html = BOOK / "_build" / "html"
    if not (html / "index.html").exists():
        command = [sys.executable, "-m", "jupyter_book", "build", str(BOOK), "-W", "-n", "--keep-going", "-q"]
        subprocess.run(command, check=True, cwd=ROOT)
    return html


@pytest.fixture
def open_page(browser):
    """Opens a file in a fresh page; fails at the end if it asked another host for anything or threw an error."""
    problems, contexts = [], []

    def open_file(path: Path, *, width=1280, height=900, scheme="light", motion="no-preference", touch=False, query=""):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion=motion, has_touch=touch
        )
        contexts.append(context)
        page = context.new_page()

        def guard(route):
            url = route.request.url
            if url.startswith(("file:", "data:", "blob:")):
                route.continue_()
            else:
                problems.append(f"request to {url}")
                route.abort()

        page.route("**/*", guard)
        page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
        page.on("console", lambda message: message.type == "error" and problems.append(f"console: {message.text}"))
        page.goto(path.as_uri() + query)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not problems, problems


def grave_violations(page) -> list[str]:
    """What axe-core finds serious or critical on a page, each with the elements concerned."""
    page.evaluate((ROOT / "tests" / "data" / "axe" / "axe.min.js").read_text())
    violations = page.evaluate(
        "axe.run(document, {resultTypes: ['violations'], preload: false}).then((result) => result.violations)"
    )
    return [
        f"{violation['id']}: {violation['help']}: {[node['html'][:200] for node in violation['nodes'][:4]]}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]
