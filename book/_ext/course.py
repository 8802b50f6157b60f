"""The course, to be handed out: `course.py [FOLDER] [--nbgrader SEED]`, into book/course/_build. Generated, and never committed.

student/      the site without solutions and without the pages for teachers, and the notebooks with a cell for each answer
instructor/   the site with open solutions, the notes, the rubric and the quizzes' answers; the notebooks with solutions; notes.pdf
slides/       the decks, and each as a PDF if there is a Chromium
nbgrader/     with --nbgrader, the problem sheets for it, with the numbers that the seed draws
student.zip   is for students, staff.zip has all of it

Each edition is built from a copy of the book's source in which only what has to differ does. Nothing of a solution is in what
students are given, or the command fails: see `leaks`.
"""

import argparse
import shutil
import subprocess
import sys
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import course_nbgrader
import course_notes
import leaks
import slides
from chapters import BOOK
from course_sources import instructor_source, student_source

HANDED_OUT = """\
# Jacobian-Free Backpropagation, from y = d + y⁵ to CIFAR-10: {edition}

Read: open `site/index.html` in a browser. No network is needed.

Run: with Python 3.11 or newer, in the folder `notebooks`,

    python -m venv .venv
    .venv/bin/python -m pip install -r requirements.txt
    .venv/bin/python -m jupyter lab start.ipynb

(on Windows .venv\\Scripts\\python). Whoever has PyTorch, torchvision, SciPy, scikit-learn, Matplotlib and JupyterLab can leave out the first
two lines. If a figure does not answer to the mouse, run its cell, or choose File > Trust Notebook.

{more}
"""

FOR_STUDENTS = "Below each exercise is a cell for your answer. Hand in the notebook."

FOR_STAFF = """\
Solutions are open in the pages, and folded below the exercises in the notebooks. The pages under "Teaching" have the plans of the
sessions, the notes, the rubric and the quizzes' answers; `notes.pdf` has the notes, to be printed. The folder `slides` has the decks; `student.zip` is what students get.
Do not publish this folder."""


def build(book: Path, kind: str, folder: Path) -> None:
    """The site and the notebooks of a source."""
    tool = Path(sys.executable).with_name("jupyter-book")
    _run([tool, "build", book, "-W", "-n", "--keep-going", "-q"])
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(book / "_build" / "html", folder / "site", ignore=shutil.ignore_patterns(".buildinfo"))
    _run([sys.executable, book / "_ext" / "editions.py", kind, folder / "notebooks"])
    (folder / "notebooks" / "requirements.txt").write_text(requirements())
    for_students = kind == "student"
    (folder / "README.md").write_text(
        HANDED_OUT.format(
            edition="the course" if for_students else "the course, for staff",
            more=FOR_STUDENTS if for_students else FOR_STAFF,
        )
    )


def build_slides(folder: Path) -> list[Path]:
    """The decks; returns their files."""
    shutil.rmtree(folder, ignore_errors=True)
    return slides.build(folder)


def print_pdfs(decks: list[Path], instructor: Path) -> None:
    """A PDF of each deck beside it, and of the notes, if there is a browser to print them."""
    try:
        with slides.printing_page() as page:
            for deck in decks:
                slides.print_pdf(page, deck)
            notes = course_notes.gathered(instructor / "site", instructor / "notes.html")
            course_notes.print_pdf(page, notes)
            notes.unlink()
    except FileNotFoundError as error:
        print(f"The slides and the notes have no PDF: {error}.")


def _run(command: list[object]) -> None:
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{run.stdout}\n{run.stderr}\n{' '.join(map(str, command))} failed")


def requirements() -> str:
    """What the notebooks need, for pip; the package lies beside them."""
    project = tomllib.loads((BOOK.parent / "pyproject.toml").read_text())["project"]
    return "\n".join([*project["dependencies"], *project["optional-dependencies"]["notebooks"], ""])


def refuse_leaks(path: Path, told: leaks.Told) -> None:
    """Fail if anything of a solution is in a folder or an archive."""
    found = [f"{file}: {label}: {what}" for file, label, what in leaks.found_in(path, told)]
    if found:
        raise SystemExit("\n".join(["parts of solutions are in what students are given:", *found[:40]]))


def make(folder: Path, seed: int | None = None) -> None:
    """All of the course; for nbgrader too, if there is a seed for its sheets."""
    for_nbgrader = folder / "nbgrader"
    shutil.rmtree(for_nbgrader, ignore_errors=True)
    student, instructor = folder / "student", folder / "instructor"
    sources = folder / "sources"
    with ThreadPoolExecutor() as pool:
        made = [
            pool.submit(build, student_source(sources / "student"), "student", student),
            pool.submit(build, instructor_source(sources / "instructor"), "instructor", instructor),
        ]
        for each in made:
            each.result()
    shutil.rmtree(sources)
    print_pdfs(build_slides(folder / "slides"), instructor)
    archive(folder / "student.zip", student)
    told = leaks.told_by_solutions()
    refuse_leaks(folder / "student.zip", told)
    staff = [instructor, folder / "slides", folder / "student.zip"]
    if seed is not None:
        course_nbgrader.export(for_nbgrader, seed)
        refuse_leaks(for_nbgrader / "release", told)
        staff.append(for_nbgrader)
    archive(folder / "staff.zip", *staff)


def archive(file: Path, *parts: Path) -> None:
    """Files and folders in one archive, each under its own name."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for part in parts:
            for path in sorted(part.rglob("*")) if part.is_dir() else [part]:
                made.write(path, path.relative_to(part.parent))


def main(arguments: list[str]) -> int:
    """Make the course, and say where it is."""
    parser = argparse.ArgumentParser(prog="course.py", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=BOOK / "course" / "_build")
    parser.add_argument("--nbgrader", type=int, metavar="SEED", help="write the problem sheets for nbgrader too")
    options = parser.parse_args(arguments)
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if options.nbgrader is not None:
        try:
            course_nbgrader.command()
        except FileNotFoundError as error:
            parser.exit(1, f"{error}\n")
    make(folder, options.nbgrader)
    print(f"For students: {folder / 'student.zip'}\nFor staff:    {folder / 'staff.zip'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
