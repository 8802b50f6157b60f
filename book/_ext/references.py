"""Where the links of a chapter lead in its editions: to the section that holds their target, or nowhere; never to what is not there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from chapters import BOOK, cells, claims, figures, notebooks, repository

_LINK = re.compile(
    r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<page>[\w-]+\.(?:md|ipynb))?(?P<anchor>#[^)\s]+)?\)"
)
_FENCED = re.compile(
    r"^(?P<mark>`{3,}|~{3,})(?P<directive>\{[^\n]*\n)?(?P<body>.*?)^(?P=mark) *$", re.MULTILINE | re.DOTALL
)
_HEADING = re.compile(r"^#{1,6} +(?P<heading>.+?) *$", re.MULTILINE)
_MARK = re.compile(
    r"^(?:#{1,6} +(?P<heading>.+?)|\((?P<target>[\w.-]+)\)=|:(?:label|name): *(?P<label>\S+)"
    r"|(?:`{3,}|:{3,})\{exercise\} *(?P<exercise>.*?)) *$",
    re.MULTILINE,
)

_IN_ADDRESSES = re.compile(r"[A-Za-z0-9 .,:;!?'_-]+")


@dataclass(frozen=True)
class Target:
    """Something to link to."""

    page: str
    """The file it is in: 05-….ipynb, api.md."""
    heading: str
    """The heading of the section it is in, as plain text; empty if it holds a formula, for JupyterLab does not find those."""


def find(page: str, anchor: str) -> Target:
    """What `#anchor` means on a page: a heading there, or a target anywhere in the book.

    Raises:
        ValueError: there is nothing of that name.
    """
    every = [*notebooks(), *sorted(BOOK.glob("*.md"))]
    known = {path.name: _targets(path, path.stat().st_mtime_ns) for path in every}
    # a heading's anchor is one of its page, any other name is one of the book
    for targets in (known.get(page, {}), *known.values()):
        if anchor.lower() in targets:
            return targets[anchor.lower()]
    raise ValueError(f"{page} links to #{anchor}, which is nowhere in the book")


@cache
def _targets(path: Path, changed: int) -> dict[str, Target]:
    """The targets of a page by their names in lower case."""
    return {name.lower(): Target(path.name, heading) for name, heading in _marks(path)}


def _marks(path: Path) -> Iterator[tuple[str, str]]:
    """The name of each target of a page, and the heading that it is under."""
    heading, exercises = "", 0
    chapter = re.match(r"(\d+)-", path.name)
    drawn = {figure.cell: figure.name for figure in figures(path)} if path.suffix == ".ipynb" else {}
    checked = claims(path) if drawn or path.suffix == ".ipynb" else []
    for position, (kind, text) in enumerate(_texts(path)):
        if position in drawn:
            yield drawn[position], heading
        yield from (
            (claim["identifier"], heading) for claim in checked if kind == "code" and claim["identifier"] in text
        )
        for mark in _MARK.finditer(text if kind == "markdown" else ""):
            if mark["heading"]:
                heading = _plain(mark["heading"])
                yield slug(mark["heading"]), heading
                yield identifier(mark["heading"]), heading
            elif mark["exercise"] is not None:
                exercises += 1
                number = f"{int(chapter[1])}.{exercises}" if chapter else f"{exercises}"
                heading = _plain(f"Exercise {number}: {mark['exercise']}")
            else:
                # a target names what follows it, which may be a heading
                following = _HEADING.match(text[mark.end() :].lstrip())
                yield mark["target"] or mark["label"], _plain(following["heading"]) if following else heading


def _texts(path: Path) -> list[tuple[str, str]]:
    """The kind and the text of each cell, without code in Markdown; a page of Markdown is one."""
    if path.suffix == ".md":
        return [("markdown", _without_code(path.read_text()))]
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in cells(path)]
    return [(kind, _without_code(text) if kind == "markdown" else text) for kind, text in found]


def _without_code(text: str) -> str:
    """Without blocks of code, those inside directives among them: a comment there is no heading."""
    return _FENCED.sub(
        lambda block: block["mark"] + block["directive"] + _without_code(block["body"]) if block["directive"] else "",
        text,
    )


def slug(heading: str) -> str:
    """The anchor that MyST gives a heading."""
    text = re.sub(r"\$[^$]*\$|[*`]", "", heading).strip().lower().replace(" ", "-")
    return re.sub(r"[^\w\-]", "", text)


def identifier(heading: str) -> str:
    """The anchor that its section has on the page: another one, where the heading holds a formula."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"[$*`]", "", heading).lower()).strip("-")


def _plain(heading: str) -> str:
    text = re.sub(r"[*`]", "", heading)
    return "" if re.search(r"[$\[{<]", text) else text


class Links:
    """Rewrites the links of a page for an edition.

    Args:
        page: the page's file.
        fragments: whether a link may lead to a heading, as it may in JupyterLab; each other host names headings in its own way.
        up: the way from the file that is written to the chapters: "../" for a solution.
    """

    def __init__(self, page: str, *, fragments: bool, up: str = "") -> None:
        self.page, self.fragments, self.up = page, fragments, up

    def __call__(self, text: str) -> str:
        return _LINK.sub(self._link, text)

    def _link(self, match: re.Match) -> str:
        text, page, anchor = match["text"], match["page"], match["anchor"]
        if not page and not anchor:
            return match[0]
        target = find(page or self.page, anchor[1:]) if anchor else Target(page, "")
        address = self._address(target)
        text = text or target.heading or target.page
        return f"[{text}]({address})" if address else text

    def _address(self, target: Target) -> str:
        """Where a target is found, or nothing."""
        if target.page.endswith(".md"):
            # no notebook: the published page, where there is one
            return f"{repository()}/blob/main/book/{target.page}" if repository() else ""
        file = f"{self.up}{target.page}" if target.page != self.page or self.up else ""
        # as JupyterLab names a heading; it does not find one with characters that an address writes in another way
        named = self.fragments and target.heading and _IN_ADDRESSES.fullmatch(target.heading)
        return f"{file}#{target.heading.replace(' ', '-')}" if named else file
