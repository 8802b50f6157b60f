"""The work edition in JupyterLab, in a real browser: a reader opens a chapter, and runs it."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from conftest import BOOK, ROOT
from nbformat.v4 import new_markdown_cell, new_notebook

sys.path.insert(0, str(BOOK / "_ext"))

import editions

SHORT = "03-solving.ipynb"  # the quickest to run
LONG = "05-jacobian-free-backpropagation.ipynb"
SCREEN = 790  # pixels of a notebook that a laptop shows
FOLDED = {"hide-input", "remove-input"}
RAW = re.compile(r"^:{3,}|\{[a-z][\w:-]*\}`|^`{3,}\{|^\([\w.-]+\)=$", re.MULTILINE)

SETTINGS = {
    # every cell is in the page, also those that are far from the screen
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

CELLS = """() => jupyterapp.shell.currentWidget.content.widgets.map((cell) => ({
  type: cell.model.type,
  tags: cell.model.getMetadata("tags") ?? [],
  hidden: Boolean(cell.inputHidden),
  errors: cell.model.type === "code" ? cell.model.toJSON().outputs.filter((output) => output.output_type === "error").length : 0,
}))"""

LINKS = """\
# Links

[an exercise](#Exercise-5.1:-Do-it) and [another chapter](there.ipynb#Where-it's-near)
"""


def changed_files() -> str:
    return subprocess.run(
        ["git", "status", "--porcelain", "book"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Where Jupyter keeps what it writes: in a folder of the test, not in the home of whoever runs it."""
    folder = tmp_path_factory.mktemp("jupyter")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "IPYTHONDIR")
    values = {name: str(folder / name.lower()) for name in names}
    for name, options in SETTINGS.items():
        file = Path(values["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", f"{name}.jupyterlab-settings")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(options))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def lab(environment, tmp_path_factory):
    """The address of a JupyterLab on a fresh work edition, and of two small notebooks beside it."""
    before = changed_files()
    work = tmp_path_factory.mktemp("lab") / "work"
    editions.work(work)
    far = "\n\n".join(["A line."] * 60)
    texts = {"here": [LINKS, "### Exercise 5.1: Do it"], "there": ["# There", "## Where it's near"]}
    for name, (first, last) in texts.items():
        cells = [new_markdown_cell(text) for text in (first, far, last, far)]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), work / f"{name}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    options = [
        f"--ServerApp.root_dir={work}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
    ]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", *options]
    with (work.parent / "log.txt").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=work, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, work.parent / "log.txt")
        yield lambda name: f"http://127.0.0.1:{port}/lab/tree/{name}?token={token}&reset"
    finally:
        server.terminate()
        server.wait()
    assert changed_files() == before, "reading and running the work edition changes the repository"


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(log.read_text())


@pytest.fixture(scope="module")
def open_notebook(lab, browser):
    """Opens a notebook of the work edition, and waits until all of it is there."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})

    def open_page(name):
        page = context.new_page()
        page.set_default_timeout(120_000)  # milliseconds; a busy machine's slowness is not a failure
        page.goto(lab(name))
        page.wait_for_function(
            """(name) => {
              const panel = window.jupyterapp?.shell.currentWidget;
              const shown = panel?.content?.widgets?.length;
              return panel?.context?.path === name && shown > 1 && shown === panel.content.model.cells.length;
            }""",
            arg=name,
        )
        height = 0
        while height != (height := height_of(page)):  # formulas and pictures are set one by one
            page.wait_for_timeout(1500)
        return page

    yield open_page
    context.close()


def height_of(page) -> int:
    return page.evaluate(
        "jupyterapp.shell.currentWidget.content.node.querySelector('.jp-WindowedPanel-outer').scrollHeight"
    )


def check_folds(page) -> None:
    cells = page.evaluate(CELLS)
    tagged = [cell for cell in cells if FOLDED & set(cell["tags"])]
    assert len(tagged) >= 3
    assert [cell for cell in tagged if not cell["hidden"]] == []
    assert [cell for cell in cells if cell["hidden"] and cell not in tagged] == []
    assert sum(cell["errors"] for cell in cells) == 0


def check_what_is_shown(page) -> None:
    """No markup that JupyterLab does not read, no key of the bibliography, and no picture wider than a page."""
    keys = re.compile("|".join(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text(), re.MULTILINE)))
    texts = page.locator(".jp-MarkdownOutput").all_inner_texts()
    assert len(texts) > 10
    for text in texts:
        assert not RAW.search(text), text
        assert not keys.search(text), text
    widths = page.evaluate("""[...document.querySelectorAll(".jp-OutputArea img")].map((image) => image.offsetWidth)""")
    assert widths
    assert max(widths) <= 640


def test_a_short_chapter_is_folded_before_and_after_all_of_it_is_run(open_notebook):
    page = open_notebook(SHORT)
    check_folds(page)
    check_what_is_shown(page)
    page.evaluate("jupyterapp.shell.currentWidget.sessionContext.ready")
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    counts = "jupyterapp.shell.currentWidget.content.widgets.map((cell) => cell.model.executionCount).filter(Number)"
    assert len(page.evaluate(counts)) >= 10
    check_folds(page)
    check_what_is_shown(page)
    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    page.close()


def test_the_longest_chapter_is_folded_and_short_enough_to_read(open_notebook):
    page = open_notebook(LONG)
    check_folds(page)
    check_what_is_shown(page)
    screens = height_of(page) / SCREEN
    page.close()
    assert screens <= 25, f"chapter 05 is {screens:.1f} screens long"


def wait_until_seen(page, heading: str) -> None:
    page.wait_for_function(
        """(text) => {
          const panel = jupyterapp.shell.currentWidget.node;
          const found = [...panel.querySelectorAll("h2, h3")].find((each) => each.textContent.startsWith(text));
          const top = found?.getBoundingClientRect().top;
          return top > 0 && top < innerHeight;
        }""",
        arg=heading,
    )


def test_a_link_leads_to_the_heading_that_it_names(open_notebook):
    page = open_notebook("here.ipynb")
    page.get_by_role("link", name="an exercise").click()
    wait_until_seen(page, "Exercise 5.1: Do it")
    # JupyterLab opens a chapter at its beginning, and finds a heading in one that is open
    page.get_by_role("link", name="another chapter").click()
    page.wait_for_function("jupyterapp.shell.currentWidget?.content?.widgets?.length === 4")
    page.wait_for_function("jupyterapp.shell.currentWidget.context.path === 'there.ipynb'")
    page.evaluate("jupyterapp.commands.execute('application:activate-previous-tab')")
    page.get_by_role("link", name="another chapter").click()
    wait_until_seen(page, "Where it's near")
    page.close()
