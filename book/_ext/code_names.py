"""Code in the text that names something of the API, `JFB()` or `theory.descent_check`, leads to it: once in each section."""

import re
from collections import defaultdict

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

_NAME = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(?P<call>\(.*\))?", re.DOTALL)
_CALLED_BY_ITSELF = {"class", "function", "exception"}
_ELSEWHERE = (nodes.title, nodes.rubric, nodes.caption, nodes.reference, addnodes.desc, addnodes.pending_xref)


def documented(env: BuildEnvironment) -> dict[str, tuple[str, str]]:
    """The page and the anchor of each documented name, by every end of its dotted name that is this name's alone."""
    known = defaultdict(set)
    for full, entry in env.domaindata["py"]["objects"].items():
        parts = full.split(".")
        if entry.objtype != "module":
            for begin in range(len(parts)):
                known[".".join(parts[begin:])].add((entry.docname, entry.node_id, entry.objtype))
    found = {}
    for name, entries in known.items():
        page, anchor, kind = next(iter(entries))
        # a method's name without its class says little, and makes a function's of the same name ambiguous
        if len(entries) == 1 and ("." in name or kind in _CALLED_BY_ITSELF):
            found[name] = page, anchor
    return found


def named(text: str) -> str:
    """The name in a piece of code, `JFB` in `JFB()`; none in a lower-case word alone, which is a variable as likely."""
    found = _NAME.fullmatch(text)
    if not found or (not found["call"] and re.fullmatch("[a-z]+", found["name"])):
        return ""
    return found["name"]


class CodeNames(SphinxPostTransform):
    """Links code to the API, but not in headings, captions, links, nor on the API's own page."""

    default_priority = 200  # when the links of the text have been resolved
    formats = ("html",)

    def run(self, **_: object) -> None:
        names = documented(self.env)
        if self.env.docname in {page for page, _ in names.values()}:
            return
        linked = set()
        for code in list(self.document.findall(nodes.literal)):
            target = names.get(named(code.astext()))
            above = list(ancestors(code))
            section = next((id(node) for node in above if isinstance(node, nodes.section)), None)
            if target is None or (section, target) in linked or any(isinstance(node, _ELSEWHERE) for node in above):
                continue
            linked.add((section, target))
            link = make_refnode(self.app.builder, self.env.docname, *target, code.deepcopy())
            link["classes"].append("jfb-api")
            code.replace_self(link)


def ancestors(node: nodes.Node):
    while node := node.parent:
        yield node


def setup(app: Sphinx) -> dict:
    app.add_post_transform(CodeNames)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
