"""{figure-list}   all numbered figures of the book by chapter, each with its caption and its files to download"""

import base64
import os
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from PIL import Image
from sphinx import addnodes
from sphinx.application import Sphinx

import jfb_book
from chapters import Figure, cells, figures, named_values, notebooks, title

WIDTH = 320  # pixels: book.css shows 10rem, and a dense screen has two for each of those
NONE_YET = "No chapter has a numbered figure yet."


class FigureList(Directive):
    """A section for each chapter that has figures."""

    def run(self) -> list[nodes.Node]:
        self.env = self.state.document.settings.env
        jfb_book.note_dependencies(self.env)
        found = {path: drawn for path in notebooks() if (drawn := figures(path))}
        if not found:
            return [nodes.paragraph(text=NONE_YET)]
        return [self.chapter(path, drawn) for path, drawn in found.items()]

    def chapter(self, path: Path, drawn: list[Figure]) -> nodes.section:
        section = nodes.section("", nodes.title(text=title(path)), ids=[f"figures-of-{path.stem}"])
        section += nodes.container("", *(self.figure(path, figure) for figure in drawn), classes=["jfb-figures"])
        return section

    def figure(self, path: Path, figure: Figure) -> nodes.container:
        """The picture, its number as a link to where it stands, its caption, and what there is to download."""
        file, alt = (f"/{figure.file}", "") if figure.file else self.picture(path, figure)
        link = nodes.reference("", f"Figure {figure.number}", internal=True, refuri=f"{path.stem}.html#{figure.name}")
        caption = nodes.paragraph(
            "", "", nodes.strong("", "", link), nodes.Text(" "), *self.words(path, figure.caption)
        )
        files = [("PNG" if file.endswith(".png") else "picture", file)]
        if Path(self.env.srcdir, "figures", f"{figure.name}.svg").is_file():
            files.insert(0, ("SVG", f"/figures/{figure.name}.svg"))
        downloads = nodes.paragraph()
        for kind, target in files:
            downloads += [nodes.Text(" "), download(f"{figure.number} as {kind}", target)]
        photograph = figure.file or "photograph" in cells(path)[figure.cell]["metadata"].get("tags", [])
        image = nodes.image(
            uri=self.small(file), alt=alt or f"Figure {figure.number}", classes=["jfb-photograph"] * bool(photograph)
        )
        return nodes.container("", image, caption, downloads, classes=["jfb-figure"])

    def picture(self, path: Path, figure: Figure) -> tuple[str, str]:
        """The picture that a cell has stored, as a file beside the built book, and its alternative text."""
        stored = next(o["data"] for o in cells(path)[figure.cell]["outputs"] if "image/png" in o.get("data", {}))
        file = Path(self.env.srcdir, "_build", "figures", f"{figure.name}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode("".join(stored["image/png"])))
        return f"/_build/figures/{file.name}", "".join(stored["text/plain"])

    def small(self, file: str) -> str:
        """The same picture as wide as the page shows it, for dense screens: eighty pictures are seven megabytes."""
        source = Path(self.env.srcdir, file[1:])
        target = Path(self.env.srcdir, "_build", "figures", "small", f"{source.stem}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source) as picture:
            whole = picture.convert("RGB")
        whole.resize((WIDTH, round(whole.height * WIDTH / whole.width)), Image.Resampling.LANCZOS).quantize(
            64, dither=Image.Dither.NONE
        ).save(target, optimize=True)
        return f"/_build/figures/small/{target.name}"

    def words(self, path: Path, caption: str) -> list[nodes.Node]:
        """A caption is Markdown, and may have numbers that its chapter names."""
        named = named_values(path)
        text = re.sub(r"\{glue:text\}`([\w-]+)`", lambda match: named[match[1]], caption)
        parsed = nodes.Element()
        self.state.nested_parse(StringList([text], source=os.fspath(path)), self.content_offset, parsed)
        return list(parsed[0].children) if len(parsed) else []


def download(text: str, target: str) -> addnodes.download_reference:
    return addnodes.download_reference("", text, reftarget=target, refdoc="", refexplicit=True)


def setup(app: Sphinx) -> dict:
    app.add_directive("figure-list", FigureList)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
