"""What a page loads, kept small, where the site is built; `tests/test_page_weight.py` measures it.

An explorer with much to load, a trained network of a megabyte, waits in a file of its own until the reader asks for it: see
`book/_static/late.js`. Of the theme's two thousand icons the site gets those that its pages use.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

MUCH = 200_000
"""Characters of an explorer's parameters from which on they wait."""

_EXPLORER = re.compile(
    r'data-explorer="(?P<name>\w+)" data-parameters="(?P<parameters>[^"]*)"(?P<figure>.*?</figure>)<script>', re.DOTALL
)
# name: [width, height, [other names], "code point", "path" or ["path", "path"]]
_ICON = re.compile(
    r'(?P<quote>"?)(?P<name>[\w-]+)(?P=quote):\[\d+,\d+,\[(?P<others>[^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\["[^"]*","[^"]*"\])\](?P<comma>,?)'
)


def lay_aside(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Take what weighs much out of a page."""
    if app.builder.name == "html" and "body" in context:
        context["body"] = _EXPLORER.sub(lambda found: _later(app, page, found), context["body"])


def _later(app: Sphinx, page: str, found: re.Match[str]) -> str:
    """The same explorer, whose parameters are in a file and whose script is run by `late.js`."""
    if len(found["parameters"]) < MUCH:
        return found[0]
    file = Path(app.outdir, "_static", "late", f"{page.replace('/', '-')}-{found['name']}.js")
    file.parent.mkdir(parents=True, exist_ok=True)
    # a page that was opened from disk may load a script, and no other file
    file.write_text(f"window.jfbLate = {json.dumps(found['parameters'])};\n")
    size = f"{len(found['parameters']) / 1e6:.1f} MB"
    return (
        f'data-explorer="{found["name"]}" data-ready data-late="late/{file.name}" data-size="{size}"{found["figure"]}'
        '<script type="text/plain" class="jfb-late">'
    )


def leave_out_icons(app: Sphinx, error: Exception | None) -> None:
    """Of the icons leave those that a page or the theme's scripts name."""
    icons = Path(app.outdir, "_static", "scripts", "fontawesome.js")
    if error or app.builder.name != "html" or not icons.exists():
        return
    named = used_icons(Path(app.outdir))
    text = icons.read_text()
    kept = slim(text, named)
    # the theme's next version may write them in another way, and the site would be heavy again without a word
    if len(text) > 500_000 and len(kept) > len(text) / 4:
        raise SphinxError(f"{icons} has no icons of the form that page_weight.py knows: nothing was left out")
    icons.write_text(kept)


def used_icons(site: Path) -> set[str]:
    """The names after `fa-` in the pages and in the theme's scripts."""
    scripts = [path for path in site.glob("_static/scripts/*.js") if path.name != "fontawesome.js"]
    pages = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    return {name for path in [*pages, *scripts] for name in re.findall(r"\bfa-([a-z0-9-]+)", path.read_text())}


def slim(text: str, named: set[str]) -> str:
    """A script of Font Awesome without the icons that have none of these names; their licence stays at its top."""

    def keep(icon: re.Match[str]) -> str:
        names = {icon["name"], *re.findall(r'"([^"]+)"', icon["others"])}
        return icon[0] if names & named else ""

    return re.sub(r",\}", "}", _ICON.sub(keep, text))


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", lay_aside, priority=900)
    app.connect("build-finished", leave_out_icons)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
