"""What the links within the book point to, in short, for `book/_static/popover.js` to show: `_static/previews.js`, made by the build.

A page opened from disk may not read another page; it may load a script.
"""

import json
import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from chapters import claims, notebooks

_LINKS_AND_NAMES = re.compile(r'<a class="headerlink".*?</a>|</?a\b[^>]*>| (?:id|tabindex|role)="[^"]*"', re.DOTALL)
_TAG = re.compile(r"\\tag\*?\{(?P<tag>[^}]*)\}|\\label\{[^}]*\}")
_CLAIM = "<p><strong>{states}</strong></p><p>{source}: {verdict}.</p>"


class Previews:
    """Collects the links of each page as it is written, and writes the previews when all pages are."""

    def __init__(self) -> None:
        self.links: dict[str, list[str]] = {}
        self.pages: dict[str, nodes.document] = {}

    def read(self, app: Sphinx, doctree: nodes.document, page: str) -> None:
        self.pages[page] = doctree
        self.links[page] = sorted(
            {target(link, page) for link in doctree.findall(nodes.reference) if is_internal(link)}
        )

    def write(self, app: Sphinx, error: Exception | None) -> None:
        if error or app.builder.name != "html":
            return
        every = self.links_of_all_pages(app)
        pairs = sorted({tuple(name.split("#", 1)) for names in every.values() for name in names})
        previews = {
            f"{page}#{anchor}": self.preview(app, page, anchor) for page, anchor in pairs if page in app.env.all_docs
        }
        text = json.dumps({name: html for name, html in previews.items() if html}, ensure_ascii=False, indent=0)
        Path(app.outdir, "_static", "previews.js").write_text(f"window.jfbPreviews = {text};\n")

    def links_of_all_pages(self, app: Sphinx) -> dict[str, list[str]]:
        """Those of the pages of this build, and of an earlier one if a page has not changed since."""
        kept = Path(app.doctreedir, "links.json")
        before = json.loads(kept.read_text()) if kept.exists() else {}
        every = {page: links for page, links in (before | self.links).items() if page in app.env.all_docs}
        kept.write_text(json.dumps(every))
        return every

    def preview(self, app: Sphinx, page: str, anchor: str) -> str:
        """The HTML of what is to be shown, or nothing."""
        if page not in self.pages:  # unchanged since an earlier build; this reads it
            app.env.get_and_resolve_doctree(page, app.builder)
        doctree = self.pages[page]
        parts = excerpt(find(doctree, anchor)) if not anchor or find(doctree, anchor) else []
        if not parts:
            return claim(page, anchor)
        # the writer takes the numbers of figures and sections from here
        app.builder.current_docname = page
        app.builder.secnumbers = app.env.toc_secnumbers.get(page, {})
        app.builder.fignumbers = app.env.toc_fignumbers.get(page, {})
        html = app.builder.render_partial(nodes.container("", *parts))["fragment"]
        return _LINKS_AND_NAMES.sub("", html).strip()


def is_internal(link: nodes.reference) -> bool:
    return link.get("internal", False) or "refid" in link


def target(link: nodes.reference, page: str) -> str:
    """What a link on a page points to: the page and, after a #, the anchor."""
    address = link.get("refuri") or f"#{link.get('refid', '')}"
    file, _, anchor = address.partition("#")
    return f"{file.removesuffix('.html') or page}#{anchor}"


def find(doctree: nodes.document, anchor: str) -> nodes.Element | None:
    """The node of that name; without a name, the page."""
    if not anchor:
        return next(doctree.findall(nodes.section), None)
    found = next((node for node in doctree.findall(nodes.Element) if anchor in node.get("ids", [])), None)
    return found.next_node(nodes.Element, descend=False, siblings=True) if isinstance(found, nodes.target) else found


def excerpt(node: nodes.Element | None) -> list[nodes.Node]:
    """What tells a reader what a node is: of a section its heading and first paragraph, of a figure all."""
    if node is None:
        return []
    if isinstance(node, nodes.section):
        return [heading(*node[0].deepcopy().children), *first_paragraph(node.children)]
    if isinstance(node, addnodes.desc_signature):
        shown = (addnodes.desc_name, addnodes.desc_parameterlist, addnodes.desc_returns)
        signature = "".join(part.astext() for part in node if isinstance(part, shown))
        return [nodes.paragraph("", "", nodes.literal(text=signature)), *first_paragraph(node.parent[-1].children)]
    if isinstance(node, nodes.math_block):
        return equation(node)
    if isinstance(node, nodes.Admonition):
        return box(node)
    if isinstance(node, nodes.figure):
        return [figure(node)]
    if isinstance(node, nodes.definition_list):  # an entry of the glossary: the target before it names the list
        return [node.deepcopy()]
    return first_paragraph(node.children) or ([node.deepcopy()] if isinstance(node, nodes.paragraph) else [])


def box(node: nodes.Element) -> list[nodes.Node]:
    """A theorem or an exercise; the writer would look for its number where the copy is not."""
    title, inside = node[0].deepcopy(), node[1:]
    if inside and isinstance(inside[0], nodes.section):
        inside = inside[0].children
    kind = node.get("realtype") or node.get("type") or ""
    return [heading(nodes.Text(kind.title()), *title.children), *(child.deepcopy() for child in inside)]


def figure(node: nodes.figure) -> nodes.figure:
    """The picture and its caption; the dark theme turns drawings over, which are those of cells, and no photographs."""
    copy, cell = node.deepcopy(), node.parent
    while cell is not None and cell.get("nb_element") != "cell_code":
        cell = cell.parent
    if cell is None or "tag_photograph" in cell["classes"]:
        for image in copy.findall(nodes.image):
            image["classes"].append("jfb-photograph")
    return copy


def heading(*words: nodes.Node) -> nodes.paragraph:
    return nodes.paragraph("", "", nodes.strong("", "", *words))


def first_paragraph(children: list[nodes.Node]) -> list[nodes.Node]:
    return [node.deepcopy() for node in children if isinstance(node, nodes.paragraph)][:1]


def equation(node: nodes.math_block) -> list[nodes.Node]:
    """With its name in words: a tag is set once on a page, and so is a label."""
    copy, text = node.deepcopy(), node.astext()
    names = [f"({found['tag']})" for found in _TAG.finditer(text) if found["tag"]]
    copy.children = [nodes.Text(_TAG.sub("", text))]
    copy["number"] = copy["label"] = None
    return [*([heading(nodes.Text(", ".join(names)))] if names else []), copy]


def claim(page: str, anchor: str) -> str:
    """What a claim states, and what came out; nothing if the page checks none of that name."""
    for path in notebooks():
        for found in claims(path) if path.stem == page else []:
            if found["identifier"] == anchor:
                return _CLAIM.format(**{name: escape(str(text)) for name, text in found.items()})
    return ""


def setup(app: Sphinx) -> dict:
    previews = Previews()
    app.connect("doctree-resolved", previews.read)
    app.connect("build-finished", previews.write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
