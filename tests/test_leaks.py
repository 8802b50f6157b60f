"""What students are given has nothing of a solution: not in prose, code, outputs, page source, the search's index or an archive.

The editions of all chapters are searched as notebooks, and as sources of the site; the site itself is built here of three chapters.
`make course` builds and searches all of it, and refuses what it finds.
"""

import base64
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbclient
import nbformat
import pytest
import yaml
from conftest import BOOK, CHAPTERS, build_command
from nbformat.v4 import new_code_cell, new_output

sys.path.insert(0, str(BOOK / "_ext"))

import chapter_cells
import chapters
import course
import course_sources
import editions
import leaks
import quizzes

THREE = ("01-output-defined-by-an-equation", "03-solving", "05-jacobian-free-backpropagation")


@pytest.fixture(scope="module")
def told():
    return leaks.told_by_solutions()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return course_sources.student_source(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    """The notebooks of the students, as they get them."""
    folder = tmp_path_factory.mktemp("handed-out")
    assert editions.main(["student", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def small_site(source, tmp_path_factory):
    """The students' site of three chapters; links to the others lead nowhere, and are no errors here."""
    book = tmp_path_factory.mktemp("small") / "book"
    left = [path.stem for path in CHAPTERS if path.stem not in THREE]
    shutil.copytree(source, book, ignore=lambda _, names: [n for n in names if Path(n).stem in left])
    for name in ("pyproject.toml", "CITATION.cff"):
        shutil.copy2(source.parent / name, book.parent)
    pages = [{"file": name} for name in (*THREE, "course/project", "claims", "figures")]
    (book / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "index", "chapters": pages}))
    run = subprocess.run(build_command(book)[:3], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return book / "_build" / "html"


def found(path, told):
    return {f"{file}: {label}: {what}" for file, label, what in leaks.found_in(path, told)}


def labels_with_solution():
    return {label for path in CHAPTERS for label in chapter_cells.split(nbformat.read(path, as_version=4).cells)[1]}


# That it is seen


def test_every_solution_is_known_by_what_it_alone_says(told, site):
    known = list(told.runs.values())
    assert {label for label in labels_with_solution() if known.count(label) < 20} == set()
    # and in a site that is for everybody, all of it is found: a line that a page writes in another way would be looked for in vain
    pages = {name for path in CHAPTERS for name in (f"{path.stem}.html", f"_sources/{path.stem}.ipynb")}
    seen = {what for name in pages for _, _, what in leaks.found_in(site / name, told)}
    assert {" ".join(run) for run in told.runs} <= seen
    in_index = {what for _, _, what in leaks.found_in(site / "searchindex.js", told)}
    assert len(in_index) > 40
    assert in_index <= told.words.keys()


def test_a_leak_is_found_wherever_it_is(told, tmp_path):
    run, label = next(iter(told.runs.items()))
    said = " ".join(run)
    word = next(iter(told.words))
    (tmp_path / "alt.html").write_text(f'<p><img alt="{said}"></p>')
    (tmp_path / "code.html").write_text("".join(f"<span class='n'>{part}</span> " for part in run))
    (tmp_path / "previews.js").write_text('x = "<p>' + said.replace(" ", "\\n", 1) + '</p>";')
    (tmp_path / "searchindex.js").write_text(f"{{terms:{{{word}:1}}}}")
    (tmp_path / "plain.txt").write_text(said)
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        inner.writestr("a.py", said)
    course.archive(tmp_path / "outer.zip", tmp_path / "inner.zip")
    files = {file for file, _, _ in leaks.found_in(tmp_path, told)}
    every = {"alt.html", "code.html", "previews.js", "searchindex.js", "plain.txt", "inner.zip/a.py"}
    assert files == every | {"outer.zip/inner.zip/a.py"}
    with pytest.raises(SystemExit, match=f"parts of solutions are in what students are given:\n.*{label}"):
        course.refuse_leaks(tmp_path, told)


def test_a_picture_of_a_solution_is_known_by_its_content(tmp_path):
    data = b"\x89PNG and so on"
    picture = base64.b64encode(data).decode()
    (tmp_path / "drawn.png").write_bytes(data)
    cell = new_code_cell("draw()", outputs=[new_output("display_data", data={"image/png": picture})])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "drawn.ipynb")
    assert list(leaks.pictures(cell)) == [picture]
    told = leaks.Told({}, {}, {leaks._digest(data): "ex-01-one"})
    assert [file for file, _, _ in leaks.found_in(tmp_path, told)] == ["drawn.ipynb", "drawn.png"]


def test_a_solution_that_is_written_in_another_way_is_refused():
    cells = [nbformat.v4.new_markdown_cell("```{solution} ex-01-one\nIt is 2.\n```")]
    with pytest.raises(ValueError, match=r"write a solution between \{solution-start\} and \{solution-end\}"):
        chapter_cells.split(cells)


# The students'


def test_the_students_notebooks_have_no_solution_and_a_cell_for_each_answer(handed_out, told):
    assert found(handed_out, told) == set()
    assert not list(handed_out.glob("solutions*"))
    for path in chapters.notebooks():
        cells = nbformat.read(handed_out / path.name, as_version=4).cells
        asked = [number for number, cell in enumerate(cells) if cell.source.startswith("### Exercise")]
        answers = [cells[number + 1].source for number in asked]
        assert answers == [chapter_cells.answer_cell(label).source for label in chapters.exercises(path)]


def test_the_students_notebooks_lead_to_what_is_there(handed_out):
    for path in handed_out.glob("*.ipynb"):
        text = chapters.text(path)
        targets = re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", text)
        assert not [target for target in targets if not (handed_out / target).exists()], path.name


def test_the_package_lies_beside_the_students_notebooks_and_its_checks_are_packed(handed_out):
    code = "import jfb_tutorial; print(jfb_tutorial.__file__)"
    if chapter_cells.exercises:
        code += "\nfrom jfb_tutorial.pages.exercises import check, labels\nprint(check(labels()[0], ...).right)"
    run = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.')\n{code}"],
        cwd=handed_out,
        capture_output=True,
        text=True,
        check=True,
    )
    file, *right = run.stdout.split()
    assert Path(file).is_relative_to(handed_out)
    assert right in ([], ["False"])
    assert (handed_out / "runs.py").exists()


def test_the_source_of_the_students_site_has_no_solution_and_nothing_for_teachers(source, told):
    for name in ("*.md", "*.ipynb", "figures", "_static", "course/*.md"):
        for path in source.glob(name):
            assert found(path, told) == set()
    assert [path.name for path in (source / "course").rglob("*.md")] == ["project.md"]
    contents = (source / "_toc.yml").read_text()
    assert re.findall(r"course/\S+", contents) == ["course/project"]
    index = (source / "index.md").read_text()
    assert "with solutions" not in index
    for path in source.glob("*.md"):
        assert "](course/" not in path.read_text(), path.name


ONLY_IN_THE_REPOSITORY = re.compile(
    r"make (?:lab|book|test|notebooks|records|timings|benchmarks|work|plain|course|serve|lint)\\b|python tests/|pytest|constraints\\.txt|environment\\.yml"
)


def test_no_page_of_an_archive_tells_of_commands_that_it_has_not(source):
    pages = [*source.glob("*.md"), *source.glob("course/*.md")]
    spoken = {path.name: path.read_text() for path in pages} | {
        path.name: chapters.text(path) for path in source.glob("*.ipynb")
    }
    assert len(spoken) > 20
    found = {name: ONLY_IN_THE_REPOSITORY.findall(text) for name, text in spoken.items()}
    assert not {name: commands for name, commands in found.items() if commands}
    # what stays can be typed there: the subcommands of the package
    gpu = spoken["on-a-gpu.md"]
    assert re.findall(r"python -m jfb_tutorial (\w+)", gpu) == ["doctor", "data", "train", *["reproduce"] * 3]


def test_the_students_site_has_no_solution(small_site, told):
    assert found(small_site, told) == set()
    for name in THREE:
        html = (small_site / f"{name}.html").read_text()
        assert html.count('class="exercise admonition"') == len(chapters.exercises(BOOK / f"{name}.ipynb"))
        assert "jfb-quiz" in html
        # what leads away from a page leads to a file of the three chapters' book, or of one that was left out
        left = {f"{path.stem}.html" for path in chapters.notebooks()} | {
            f"{path.stem}.html" for path in BOOK.glob("*.md")
        }
        for target in set(re.findall(r'href="([^":#?]+)', html)):
            assert (small_site / target).exists() or target in left, target
    assert not list(small_site.glob("course/*.html")) or [p.name for p in small_site.glob("course/*.html")] == [
        "project.html"
    ]


# The staff's


def test_the_instructors_notebooks_have_each_solution_below_its_answer_cell():
    for name in THREE:
        path = BOOK / f"{name}.ipynb"
        cells = editions.instructor_edition(path).cells
        _, solutions = chapter_cells.split(nbformat.read(path, as_version=4).cells)
        begins = [number for number, cell in enumerate(cells) if cell.source == "#### Solution"]
        assert len(begins) == len(solutions)
        for number, (label, solution) in zip(begins, solutions.items(), strict=True):
            assert cells[number].metadata["jp-MarkdownHeadingCollapsed"]
            assert cells[number - 1].source == chapter_cells.answer_cell(label).source
            code = [cell.source for cell in solution if cell.cell_type == "code"]
            inside = cells[number + 1 : number + 1 + len(solution)]
            assert [cell.source for cell in inside if cell.cell_type == "code"] == code


def test_an_instructors_notebook_runs_as_it_is(handed_out):
    notebook = editions.instructor_edition(BOOK / f"{THREE[0]}.ipynb")
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(handed_out)}})
    client.execute()  # raises where a cell does


def test_in_the_instructors_source_solutions_are_open_and_the_quizzes_are_answered(tmp_path):
    book = course_sources.instructor_source(tmp_path / "instructor")
    before = nbformat.read(BOOK / f"{THREE[0]}.ipynb", as_version=4).cells
    cells = nbformat.read(book / f"{THREE[0]}.ipynb", as_version=4).cells
    assert re.findall(r"\{solution-start\}.*\n(.*)", "\n".join(cell.source for cell in before))[0] == ":class: dropdown"
    assert ":class: dropdown" not in re.findall(r"\{solution-start\}.*\n(.*)", "\n".join(cell.source for cell in cells))
    for solution in chapter_cells.split(cells)[1].values():
        assert not any("hide-input" in cell.metadata.get("tags", []) for cell in solution)
    answers = (book / "course" / "answers.md").read_text()
    assert answers.count("\n## ") == len(CHAPTERS)
    assert "course/answers" in (book / "_toc.yml").read_text()
    right = next(choice["text"] for choice in quizzes.questions(THREE[0])[0]["choices"] if choice["right"])
    assert " ".join(right.split()) in answers
    options = yaml.safe_load((book / "_config.yml").read_text())["sphinx"]["config"]["html_theme_options"]
    assert options["announcement"].startswith("The instructor's edition")


def test_a_sentence_that_is_replaced_has_to_be_there():
    with pytest.raises(
        ValueError, match=r"'with solutions' is to be replaced in the book's index\.md, and is there 0 times"
    ):
        course_sources._replaced("index.md", "Exercises.", "with solutions", "")


def test_the_notebooks_say_what_they_need():
    needed = course.requirements().split("\n")
    assert any(each.startswith("torch>=") for each in needed)
    assert any(each.startswith("jupyterlab") for each in needed)
