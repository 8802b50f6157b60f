"""The notes for teachers as one PDF: the pages of the built site behind each other, without links, printed by Chromium."""

import os
import re
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup

STYLE = """\
@page { size: A4; margin: 20mm 19mm 22mm; }
body { font: 10.5pt/1.45 system-ui, "Segoe UI", "Liberation Sans", "DejaVu Sans", sans-serif; color: #1b1b1b; }
h1 { break-before: page; margin: 0 0 6mm; font-size: 19pt; color: #0072b2; }
section:first-of-type > h1 { break-before: auto; }
h2 { margin: 6mm 0 2mm; font-size: 13pt; break-after: avoid; }
li, tr, pre, mjx-container[display="true"] { break-inside: avoid; }
code, pre { font: 0.9em ui-monospace, "DejaVu Sans Mono", monospace; }
pre { padding: 3mm; background: #f4f5f6; white-space: pre-wrap; }
table { border-collapse: collapse; }
th, td { padding: 1mm 3mm; border-bottom: 0.2mm solid #bbb; text-align: left; vertical-align: top; }
blockquote { margin-left: 4mm; padding-left: 3mm; border-left: 1mm solid #d5d9dd; }
"""

PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Notes for teachers</title><base href="{base}">{scripts}<style>{style}</style></head>
<body>{notes}</body></html>
"""

FOOTER = (
    '<div style="width: 100%; font: 8pt sans-serif; color: #5a5a5a; text-align: center">'
    '<span class="pageNumber"></span> of <span class="totalPages"></span></div>'
)


def gathered(site: Path, file: Path) -> Path:
    """Write the notes of a built site into one page, to be printed; returns the file."""
    paths = sorted((site / "course" / "notes").glob("*.html"))
    if not paths:
        raise ValueError(f"the site in {site} has no notes: course/notes is missing")
    notes, scripts = [], ""
    for path in paths:
        page = BeautifulSoup(path.read_text(), "html.parser")
        article = page.select_one("article.bd-article")
        for part in article.select("a.headerlink, script, button"):
            part.decompose()
        # on paper a link leads nowhere, and its address would be one of this machine
        for link in article.select("a"):
            link.unwrap()
        notes.append(article.decode_contents())
        scripts = "".join(str(script) for script in page.select("head script") if re.search("(?i)mathjax", str(script)))
    base = Path(os.path.relpath(paths[0].parent, file.parent)).as_posix() + "/"
    file.write_text(PAGE.format(base=base, scripts=scripts, style=STYLE, notes="\n".join(notes)))
    return file


def print_pdf(page: Any, file: Path) -> Path:
    """A page of notes as a PDF beside it; `page` is one of Playwright's."""
    page.goto(file.resolve().as_uri())
    page.evaluate("window.MathJax?.startup?.promise")
    pdf = file.with_suffix(".pdf")
    page.pdf(
        path=pdf,
        prefer_css_page_size=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOTER,
        outline=True,
        tagged=True,
    )
    return pdf
