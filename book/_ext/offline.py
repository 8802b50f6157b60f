"""The book in one archive that needs no network: `offline.py`, into book/_build/jfb-book.zip.

site/        the built site; index.html opens from disk
notebooks/   the chapters with a cell for each answer and folded solutions, and all that they need beside PyTorch and its like
book.pdf     the book on paper, if `make pdf` has made it
"""

import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from chapters import BOOK, version
from course import requirements
from editions import handed_out, instructor_edition

SITE = BOOK / "_build" / "html"
TOP = "jfb-book"
NOT_NEEDED = ("*.map", ".buildinfo", "objects.inv")
"""Of the site: what a reader's browser does not ask for."""

README = """\
# Jacobian-Free Backpropagation, from y = d + y⁵ to CIFAR-10, version {version}

Read: open `site/index.html` in a browser. No network is needed.{pdf}

Run: with Python 3.11 or newer, in the folder `notebooks`,

    python -m venv .venv
    .venv/bin/python -m pip install -r requirements.txt
    .venv/bin/python -m jupyter lab start.ipynb

(on Windows .venv\\Scripts\\python). Only this asks for a network, to install PyTorch and its like; whoever has them can leave out the first two
lines. If a figure does not answer to the mouse, run its cell, or choose File > Trust Notebook.

Text: CC BY 4.0. Code: MIT.
"""


def make(target: Path, *, site: Path = SITE, pdf: Path | None = None) -> Path:
    """Write the archive.

    Raises:
        FileNotFoundError: the site has not been built.
    """
    if not (site / "index.html").is_file():
        raise FileNotFoundError(f"{site} has no index.html; `make book` builds the site")
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder) / TOP
        shutil.copytree(site, top / "site", ignore=shutil.ignore_patterns(*NOT_NEEDED))
        handed_out(top / "notebooks", instructor_edition)
        (top / "notebooks" / "requirements.txt").write_text(requirements())
        there = pdf is not None and pdf.is_file()
        if pdf is not None and there:
            shutil.copyfile(pdf, top / "book.pdf")
        words = " `book.pdf` is the same on paper." if there else ""
        (top / "README.md").write_text(README.format(version=version(), pdf=words))
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(top.rglob("*")):
                # a picture is compressed already
                way = zipfile.ZIP_STORED if path.suffix in (".png", ".woff", ".safetensors") else zipfile.ZIP_DEFLATED
                archive.write(path, path.relative_to(folder), way)
    return target


def main() -> int:
    try:
        made = make(BOOK / "_build" / f"{TOP}.zip", pdf=BOOK / "_build" / "book.pdf")
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The archive is at {made}, {made.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
