"""In the pages for teaching, a code span that names a figure, an exercise, a claim or a question leads to it."""

from functools import cache

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

import chapters
import quizzes


@cache  # a build asks for each of its pages, and the chapters stay as they are
def places() -> dict[str, str]:
    """The names that the chapters give, each with its page; a name is an anchor there."""
    found = {}
    for path in chapters.notebooks():
        names = [figure.name for figure in chapters.figures(path)]
        names += [claim["identifier"] for claim in chapters.claims(path)]
        names += chapters.exercises(path)
        if "{quiz}" in chapters.text(path):
            names += [question["id"] for question in quizzes.questions(path.stem)]
        found |= dict.fromkeys(names, path.stem)
    return found


class CourseNames(SphinxPostTransform):
    """Links for the names in code spans."""

    default_priority = 500
    formats = ("html",)

    def run(self, **_: object) -> None:
        page = self.env.docname
        if not page.startswith("course/"):
            return
        where = places()
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
