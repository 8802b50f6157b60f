"""What the front page says of each chapter: its promise, which stands there, and its name and times, which are looked up.

{chapter-map}   a line a chapter, `05: what it gives you`; the build fails for a chapter without one, and for one said twice. Of a chapter
                that is not there yet the promise waits, and the map says which chapters are being written.
"""

import re

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import jfb_book
from chapters import BOOK, chapter_time, notebooks, title


def parts() -> list[tuple[str, list[str]]]:
    """The parts of the book that have numbered chapters: the caption, and the names of the chapters' files."""
    contents = yaml.safe_load((BOOK / "_toc.yml").read_text())
    # a book of a few chapters has no parts
    divided = contents.get("parts") or [{"caption": "", "chapters": contents.get("chapters", [])}]
    made = [(part["caption"], [each["file"] for each in part["chapters"]]) for part in divided]
    numbered = [(caption, [name for name in names if re.match(r"\d\d-", name)]) for caption, names in made]
    return [(caption, names) for caption, names in numbered if names]


def promises(lines: list[str]) -> dict[str, str]:
    """What each chapter gives, by its two digits.

    Raises:
        ValueError: a line is not of this form, or a chapter has two.
    """
    made: dict[str, str] = {}
    for line in filter(None, map(str.strip, lines)):
        found = re.fullmatch(r"(\d\d): *(.+)", line)
        if not found:
            raise ValueError(f"a line of the map is `05: what it gives you`, got {line!r}")
        if found[1] in made:
            raise ValueError(f"chapter {found[1]} has two lines in the map")
        made[found[1]] = found[2]
    return made


def short_time(name: str) -> str:
    """`about 40 minutes to read, 16 seconds to run`, in short."""
    short = chapter_time(name).removeprefix("about ").replace("minutes", "min").replace("seconds", "s")
    return ", ".join(part.replace(" ", "\u00a0") for part in short.split(", "))  # breaks between the two times alone


class ChapterMap(Directive):
    """The chapters, part by part."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        jfb_book.note_dependencies(env)
        env.note_dependency(str(BOOK / "_toc.yml"))
        try:
            said = promises(list(self.content))
        except ValueError as error:
            raise self.error(str(error)) from error
        files = {path.stem: path for path in notebooks()}
        listed = [name for _, names in parts() for name in names]
        if missing := sorted({name[:2] for name in listed} - said.keys()):
            raise self.error(f"the map of book/index.md says nothing of chapter {', '.join(missing)}: add a line each")
        made: list[nodes.Node] = []
        for caption, names in parts():
            items = [self.item(name, title(files[name]), said[name[:2]]) for name in names]
            made += [nodes.rubric("", caption)] if caption else []
            made.append(nodes.bullet_list("", *items, classes=["jfb-map"]))
        if waiting := sorted(said.keys() - {name[:2] for name in listed}):
            which = " and ".join(", ".join(str(int(number)) for number in waiting).rsplit(", ", 1))
            made.append(nodes.paragraph(text=f"Being written: chapter{'s' * (len(waiting) > 1)} {which}."))
        return made

    def item(self, name: str, heading: str, promise: str) -> nodes.list_item:
        link = nodes.reference("", f"{int(name[:2])} {heading}", internal=True, refuri=f"{name}.html")
        words, messages = self.state.inline_text(promise, self.lineno)
        first = nodes.paragraph("", "", nodes.strong("", "", link), nodes.Text(" "))
        first += [nodes.inline("", "", *words), nodes.Text(" "), nodes.emphasis(text=short_time(name))]
        return nodes.list_item("", first, *messages)


def setup(app: Sphinx) -> dict:
    app.add_directive("chapter-map", ChapterMap)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
