"""The browser that prints the slides and in which the tests look at pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def find() -> str | None:
    """Where a Chromium is: that of the environment variable CHROMIUM, or one on the path."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@contextmanager
def launched() -> Iterator[Any]:
    """A Chromium without a window, as Playwright has it.

    Raises:
        FileNotFoundError: there is none.
    """
    from playwright.sync_api import sync_playwright  # only here: to build a page or a deck takes none

    path = find()
    if path is None:
        raise FileNotFoundError("a PDF takes a Chromium; name one in the environment variable CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
