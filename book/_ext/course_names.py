"""In the pages for teaching, a code span that names a figure, an exercise, a claim or a question leads to it."""

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

import chapters
import quizzes


def places() -> Iterator[tuple[str, str]]:
    """The names that the chapters give, each with its page; a name is an anchor there."""
    for path in chapters.notebooks():
        text = "\n".join("".join(cell["source"]) for cell in chapters.cells(path) if cell["cell_type"] == "markdown")
        names = [figure.name for figure in chapters.figures(path)]
        names += [claim["identifier"] for claim in chapters.claims(path)]
        names += re.findall(r"\{exercise\}[^\n]*\n:label: (\S+)", text)
        if "{quiz}" in text:
            names += [question["id"] for question in quizzes.questions(path.stem)]
        yield from ((name, path.stem) for name in names)


class CourseNames(SphinxPostTransform):
    """Links for the names in code spans."""

    default_priority = 500
    formats = ("html",)

    def run(self, **_: object) -> None:
        page = self.env.docname
        if not page.startswith("course/"):
            return
        where = dict(places())
        for span in list(self.document.findall(nodes.literal)):
            name = span.astext()
            if name in where and not isinstance(span.parent, nodes.reference):
                address = f"{self.app.builder.get_relative_uri(page, where[name])}#{name}"
                link = nodes.reference("", "", internal=True, refuri=address)
                span.replace_self(link)
                link += span


def setup(app) -> dict:
    app.add_post_transform(CourseNames)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
