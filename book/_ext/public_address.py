"""What machines read on a page: a description always, and once the site has a public address a sitemap, Open Graph and citation tags.

The address is that of the environment variable JFB_SITE (`make book SITE=https://…`), or Documentation under [project.urls] in
pyproject.toml. While there is none nothing here names one.

{downloads}   where the whole book is to be had as a PDF and as an archive: beside the published site, so nothing without an address
"""

import os
import re
import shutil
import tomllib
from html import escape
from pathlib import Path
from xml.sax.saxutils import escape as escape_xml

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from chapters import BOOK

PDF, ARCHIVE, PICTURE = "book.pdf", "jfb-book.zip", "_static/preview.png"
NOT_LISTED = re.compile(r"search|genindex|py-modindex|_modules/")


def site() -> str:
    """The public address of the site, or nothing while it is not known.

    Raises:
        ValueError: it is no address.
    """
    urls = tomllib.loads((BOOK.parent / "pyproject.toml").read_text())["project"].get("urls", {})
    address = (os.environ.get("JFB_SITE") or urls.get("Documentation", "")).rstrip("/")
    if address and not re.fullmatch(r"https?://[^\s\"'<>]+", address):
        raise ValueError(
            f"the address of the site is to be https://…, got {address!r}: see JFB_SITE and pyproject.toml"
        )
    return address


def citation() -> dict:
    """What CITATION.cff says of the book."""
    return yaml.safe_load((BOOK.parent / "CITATION.cff").read_text())


def use_address(app: Sphinx, config) -> None:
    """Sphinx then says on each page where its one true copy is."""
    config.html_baseurl = f"{site()}/" if site() else ""


def describe(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Add a page's tags."""
    if app.builder.name != "html":
        return
    words = first_words(doctree) if doctree else ""
    lines = [meta("name", "description", words)] if words else []
    if site() and doctree is not None:
        cited = citation()
        title = re.sub(r"<[^>]+>|^\d+\. ", "", context.get("title", "")) or cited["title"]
        lines += tags(page, title, words, cited)
    context["metatags"] = context.get("metatags", "") + "\n".join(["", *lines])


def tags(page: str, title: str, words: str, cited: dict) -> list[str]:
    """Open Graph's and those by which libraries and search engines cite a page."""
    whole, book, home = page == "index", cited["title"], site()
    address = f"{home}/{page}.html"
    day = str(cited["date-released"]).replace("-", "/")
    authors = [each.get("name") or f"{each['family-names']}, {each['given-names']}" for each in cited["authors"]]
    return [
        meta("property", "og:type", "book" if whole else "article"),
        meta("property", "og:title", title),
        meta("property", "og:site_name", book),
        meta("property", "og:url", address),
        *([meta("property", "og:description", words)] if words else []),
        meta("property", "og:image", f"{home}/{PICTURE}"),
        meta("property", "og:image:alt", "The first chapter, with a cobweb diagram that answers to the hand"),
        meta("name", "twitter:card", "summary_large_image"),
        meta("name", "citation_title", book if whole else title),
        *([] if whole else [meta("name", "citation_inbook_title", book)]),
        *(meta("name", "citation_author", author) for author in authors),
        meta("name", "citation_publication_date", day),
        meta("name", "citation_language", "en"),
        meta("name", "citation_public_url", address),
        *([meta("name", "citation_pdf_url", f"{home}/{PDF}")] if whole else []),
    ]


def meta(kind: str, name: str, content: str) -> str:
    return f'<meta {kind}="{name}" content="{escape(content, quote=True)}" />'


def first_words(doctree: nodes.document) -> str:
    """The first paragraph of a page that is no part of a box or a list, at most two hundred characters of it.

    A formula would be its source, so one without any is preferred.
    """
    found = [each for each in doctree.findall(nodes.paragraph) if isinstance(each.parent, nodes.section)]
    plain = [each for each in found[:8] if not any(each.findall(nodes.math))]
    words = " ".join((plain or found)[0].astext().split()) if found else ""
    return words if len(words) <= 200 else words[:197].rsplit(" ", 1)[0] + " …"


def write_sitemap(app: Sphinx, error: Exception | None) -> None:
    """All pages, for search engines, and the picture that Open Graph shows."""
    if error or app.builder.name != "html":
        return
    if not site():
        Path(app.outdir, "sitemap.xml").unlink(missing_ok=True)  # of an earlier build
        return
    listed = sorted(page for page in app.env.all_docs if not NOT_LISTED.match(page))
    lines = [f"<url><loc>{escape_xml(f'{site()}/{page}.html')}</loc></url>" for page in listed]
    Path(app.outdir, "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        + "\n".join([*lines, "</urlset>", ""])
    )
    picture = BOOK / "images" / "preview.png"
    if picture.is_file():
        shutil.copyfile(picture, Path(app.outdir, PICTURE))


class Downloads(Directive):
    """A sentence with the addresses of the PDF and the archive, once the site has one."""

    def run(self) -> list[nodes.Node]:
        if not site():
            return []
        pdf = nodes.reference("", "a PDF", refuri=f"{site()}/{PDF}")
        archive = nodes.reference("", "an archive", refuri=f"{site()}/{ARCHIVE}")
        words = [nodes.Text("The whole book: as "), pdf, nodes.Text(" to print, or as "), archive]
        return [nodes.paragraph("", "", *words, nodes.Text(" with all notebooks that opens without a network."))]


def setup(app: Sphinx) -> dict:
    app.add_directive("downloads", Downloads)
    app.connect("config-inited", use_address)
    app.connect("html-page-context", describe)
    app.connect("build-finished", write_sitemap)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
