"""What the button *Download this page* gives of a chapter: once the project has an address, the plain edition, which runs by itself
in an empty folder. Without one the notebook as it is committed, which runs in a copy of the project.
"""

from pathlib import Path

import nbformat
from sphinx.application import Sphinx

from chapters import notebooks, repository


def replace_sources(app: Sphinx, error: Exception | None) -> None:
    """Put the plain editions where the buttons lead."""
    if error or app.builder.name != "html" or not repository():
        return
    from editions import plain_edition  # only here: it takes time, and most builds need none

    for path in notebooks():
        target = Path(app.outdir, "_sources", path.name)
        if target.is_file():
            nbformat.write(plain_edition(path, repository()), target)


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", replace_sources)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
