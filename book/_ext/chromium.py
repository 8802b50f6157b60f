"""The browser that prints the slides and in which the tests look at pages."""

import os
import shutil


def find() -> str | None:
    """Where a Chromium is: that of the environment variable CHROMIUM, or one on the path."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)
