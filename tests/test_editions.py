"""The editions: what a reader opens in JupyterLab, in Colab, or anywhere."""

import re
import subprocess
import sys

import nbformat
import pytest
import yaml
from conftest import BOOK
from nbformat.sign import NotebookNotary

sys.path.insert(0, str(BOOK / "_ext"))

import chapter_cells
import chapters as chapters_read
import editions
from plain_markdown import Renderer

ROOT = BOOK.parent
RAW = re.compile(r"^:{3,}|\{[a-z][\w:-]*\}`|^`{3,}\{|^\([\w-]+\)=$", re.MULTILINE)
"""What no reader is to meet: a directive, a role, a target."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    editions.work(folder)
    return folder


def read(path):
    return nbformat.read(path, as_version=4)


def texts(notebook, kind="markdown"):
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def chapters():
    return [path.name for path in editions.notebooks()]


@pytest.mark.parametrize("name", chapters())
def test_no_markup_is_left_raw(name, folder):
    plain = editions.plain_edition(BOOK / name, "https://example.org/book")
    notebooks = [read(folder / name), plain]
    if (folder / "solutions" / name).exists():
        notebooks.append(read(folder / "solutions" / name))
    for notebook in notebooks:
        nbformat.validate(notebook)
        for text in texts(notebook):
            assert not RAW.search(text), text
    # every line of code is there, in both
    code = "\n".join(texts(read(BOOK / name), "code"))
    assert all(line in code or line in editions.SET_UP for line in "\n".join(texts(plain, "code")[1:]).splitlines())
    assert sorted(texts(plain, "code")[1:]) == sorted(texts(read(BOOK / name), "code"))


@pytest.mark.parametrize("name", chapters())
def test_exercises_have_an_answer_cell_and_their_solution_elsewhere(name, folder):
    source = "\n".join(texts(read(BOOK / name)))
    chapter = read(folder / name)
    assert "{solution-start}" not in "\n".join(texts(chapter))
    exercises = [i for i, cell in enumerate(chapter.cells) if cell.source.startswith("### Exercise")]
    assert len(exercises) == source.count("{exercise}")
    for i, label in zip(exercises, chapters_read.exercises(BOOK / name), strict=True):
        assert chapter.cells[i].source.endswith(f"[Solution](solutions/{name})")
        assert chapter.cells[i + 1].source == chapter_cells.answer_cell(label).source
    if exercises:
        solutions = read(folder / "solutions" / name)
        headings = [cell for cell in solutions.cells if cell.source.startswith("## Exercise")]
        assert len(headings) == source.count("{solution-start}") == len(exercises)
        assert all(cell.metadata["jp-MarkdownHeadingCollapsed"] for cell in headings)
        # each is followed by something to read
        assert all(not solutions.cells[solutions.cells.index(cell) + 1].source.startswith("#") for cell in headings)


@pytest.mark.parametrize("name", chapters())
def test_folded_code_is_folded_and_the_notebook_is_trusted(name, folder):
    for cell in read(folder / name).cells:
        tagged = bool({"hide-input", "remove-input"} & set(cell.metadata.get("tags", [])))
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == tagged
    assert NotebookNotary().check_signature(read(folder / name))


def test_written_again_nothing_changes(tmp_path, folder):
    editions.work(tmp_path)
    for path in sorted(folder.rglob("*.ipynb")):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()


@pytest.fixture
def one_chapter(tmp_path, monkeypatch):
    """A folder with one chapter, and a function that changes the chapter in the book."""
    source = BOOK / "03-solving.ipynb"
    monkeypatch.setattr(editions, "notebooks", lambda: [source])
    monkeypatch.setattr(editions, "_copy_what_chapters_read", lambda folder: None)
    editions.work(tmp_path)

    def change_the_book():
        changed = read(source)
        changed.cells[1].source = "# new in the book\n" + changed.cells[1].source
        (tmp_path / "book").mkdir()
        nbformat.write(changed, tmp_path / "book" / source.name)
        monkeypatch.setattr(editions, "notebooks", lambda: [tmp_path / "book" / source.name])

    return tmp_path / source.name, change_the_book


def test_what_the_reader_changed_stays(one_chapter, capsys):
    mine, change_the_book = one_chapter
    notebook = read(mine)
    notebook.cells[-1].source += "\nmy own note"
    nbformat.write(notebook, mine)
    editions.work(mine.parent)
    assert read(mine).cells[-1].source.endswith("my own note")
    assert not capsys.readouterr().out  # the book has nothing new
    change_the_book()
    editions.work(mine.parent)
    said = capsys.readouterr().out
    assert said.startswith("03-solving.ipynb: you have changed it, and so has the book; yours stays")
    assert read(mine).cells[-1].source.endswith("my own note")
    assert read(mine.with_suffix(".new.ipynb")).cells[1].source.startswith("# new in the book")
    editions.work(mine.parent)
    assert not capsys.readouterr().out  # said once


def test_what_the_reader_only_ran_is_renewed(one_chapter):
    mine, change_the_book = one_chapter
    notebook = read(mine)
    notebook.cells[-1].metadata["seen"] = True
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], 7
    nbformat.write(notebook, mine)
    editions.work(mine.parent)
    # nothing new in the book: the outputs are the reader's
    assert read(mine).cells[-1].metadata.get("seen")
    change_the_book()
    editions.work(mine.parent)
    assert read(mine).cells[1].source.startswith("# new in the book")


def test_markup_becomes_what_any_renderer_shows():
    render = Renderer("05", {"cite": lambda key: f"[{key}]"}, dollars=True).render
    assert render("As {cite}`fung` says.") == "As [fung] says."
    assert render("```python\nx = {cite}\n:::{note}\n```") == "```python\nx = {cite}\n:::{note}\n```"
    assert render("(here)=\n## There") == "## There"
    assert render(":::{exercise} One\n:label: ex-1\n\nDo it.\n:::\n\n:::{exercise} Two\n\nAgain.\n:::") == (
        "### Exercise 5.1: One\n\nDo it.\n\n### Exercise 5.2: Two\n\nAgain."
    )
    assert "<summary>Proof of <code>f</code></summary>\n\nBy $x$.\n\n</details>" in render(
        ":::{admonition} Proof of `f`\n:class: dropdown\n\nBy $x$.\n:::"
    )
    assert "**Theorem** (JFB [fung])\n\n$$\n\\begin{align*}x\\end{align*}\n$$" in render(
        ":::{prf:theorem} JFB {cite}`fung`\n:label: t\n:nonumber:\n\n\\begin{align*}x\\end{align*}\n:::"
    )
    assert (
        render("```{figure} images/a.png\n:alt: An a.\n\nThe caption.\n```") == "![An a.](images/a.png)\n\nThe caption."
    )
    with pytest.raises(ValueError, match=r"no plain form is known for the role \{numref\}`x`; add it to"):
        render("{numref}`x`")
    with pytest.raises(ValueError, match=r"no plain form is known for the directive \{bibliography\}"):
        render(":::{bibliography}\n:::")
    with pytest.raises(ValueError, match="is not closed by a line ':::'"):
        render(":::{note}\n")


def test_a_plain_chapter_needs_an_address(tmp_path):
    with pytest.raises(ValueError, match="the project has no public address; give one: make plain REPOSITORY="):
        editions.plain(tmp_path, "")


def test_the_plain_edition_brings_the_environment_for_binder(tmp_path):
    editions.plain(tmp_path, "https://example.org/owner/book")
    environment = yaml.safe_load((tmp_path / "environment.yml").read_text())
    assert environment["dependencies"][-1] == {"pip": ["jfb_tutorial[notebooks] @ git+https://example.org/owner/book"]}


def test_a_plain_chapter_runs_alone_in_an_empty_folder(tmp_path):
    notebook = editions.plain_edition(BOOK / "03-solving.ipynb", str(ROOT))
    # its first four cells of code: the one that sets up, and those that read what it fetched
    code = "\n".join(texts(notebook, "code")[:4])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "jfb-book" / "book" / "records").is_dir()


def test_an_exercise_without_a_check_has_a_plain_cell_for_the_answer():
    assert chapter_cells.answer_cell("ex-99-none").source == "# your answer\n"


@pytest.mark.parametrize("arguments", [[], ["student"], ["instructor"], ["teacher", "folder"]])
def test_what_is_no_edition_is_explained(arguments, capsys):
    assert editions.main(arguments) == 2
    assert "student     as work, without solutions" in capsys.readouterr().err
