"""The repository as a whole: what it names, what it holds, what a stranger relies on."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from conftest import BOOK, ROOT

sys.path.insert(0, str(BOOK / "_ext"))
import jfb_book

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tracked():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if names.returncode:
        pytest.fail("git does not list the files of this checkout: run the tests in a clone")
    return [ROOT / name for name in names.stdout.split("\0") if name and (ROOT / name).exists()]


def test_no_large_file_no_data_no_place_on_a_machine():
    index_host = re.compile("py" + r"pi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npm")
    place = re.compile(r"(?<![\w.])/(home|root|work|Users)/\w")
    for path in tracked():
        assert path.stat().st_size < 4_000_000, path
        if "_vendor" in path.parts or "axe" in path.parts or path.suffix in (".png", ".safetensors"):
            continue
        text = path.read_text(encoding="utf-8")
        assert not index_host.search(text), path
        if path.name not in ("test_project.py", "test_notebooks.py"):
            assert not place.search(text), f"{path}: {place.search(text)}"


def test_the_pins_lie_in_the_ranges_and_cover_them():
    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    wanted = [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["notebooks"],
        *PROJECT["optional-dependencies"]["book"],
        *PROJECT["optional-dependencies"]["test"],
    ]
    for text in wanted:
        requirement = Requirement(text)
        assert pins[re.sub(r"[-_.]+", "-", requirement.name).lower()] in requirement.specifier, text


def test_workflows_run_fixed_actions_with_the_least_rights():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}, path
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        for step in steps:
            # a tag can be moved to other code, a commit cannot
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step.get("uses", "a@" + 40 * "0")), step
        for name, job in workflow["jobs"].items():
            # what may publish runs nothing but GitHub's own actions and git, no code of the repository or of what it depends on
            commands = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
            assert "permissions" not in job or all(line.startswith("git ") for line in commands), name


def test_the_citation_agrees_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["title"] == yaml.safe_load((BOOK / "_config.yml").read_text())["title"]


def test_the_address_stands_in_one_place():
    """While pyproject.toml names no repository there are no launch buttons; once it does, they appear."""

    class Config:
        html_theme_options = {"launch_buttons": {}, "use_download_button": True}  # noqa: RUF012

    jfb_book.set_repository(None, Config)
    assert ("repository_url" in Config.html_theme_options) == bool(jfb_book.repository())
    assert "repository-code" not in yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_an_address_gives_launch_buttons_and_a_citation(monkeypatch, tmp_path):
    monkeypatch.setattr(jfb_book, "repository", lambda: "https://example.org/owner/name")

    class Config:
        html_theme_options = {}  # noqa: RUF012

    jfb_book.set_repository(None, Config)
    assert Config.html_theme_options["repository_url"] == "https://example.org/owner/name"
    assert Config.html_theme_options["launch_buttons"]["colab_url"]
    # they lead to the edition that any host can run, which the workflow puts at the top of a branch of its own
    assert (Config.html_theme_options["repository_branch"], Config.html_theme_options["path_to_docs"]) == (
        "notebooks",
        "",
    )
    assert "initial-branch notebooks" in (ROOT / ".github/workflows/publish.yml").read_text()
    (block,) = jfb_book.CiteThisBook.run(None)
    assert "https://example.org/owner/name" in block.astext()


def test_every_page_is_in_the_table_of_contents():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    below = [section["file"] for chapter in chapters for section in chapter.get("sections", [])]
    listed = [toc["root"], *(chapter["file"] for chapter in chapters), *below]
    # neither the slides nor what `make course` has built are pages of the site
    course = [path for folder in ("course", "course/notes") for path in (BOOK / folder).glob("*.md")]
    pages = [*BOOK.glob("*.md"), *BOOK.glob("*.ipynb"), *course]
    assert sorted(listed) == sorted(str(path.relative_to(BOOK).with_suffix("")) for path in pages)


def test_the_run_times_are_those_of_the_chapters():
    record = json.loads((BOOK / "_run_times.json").read_text())
    assert set(record) == {path.stem for path in BOOK.glob("*.ipynb")}
    for run in record.values():
        assert run["seconds"] < 60
        assert set(run) == {"seconds", "device", "versions", "date", "commit"}


def modules() -> list[str]:
    paths = sorted((ROOT / "jfb_tutorial").rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def test_every_module_can_be_imported_first():
    # torch once, and a process of its own for each module, forked from there
    code = """
import importlib, os, sys
import torch, matplotlib.pyplot, sklearn, torchvision
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
            os._exit(0)
        except BaseException as error:
            print(name, repr(error), flush=True)
            os._exit(1)
    failed += [name] * bool(os.waitpid(child, 0)[1])
sys.exit(bool(failed))
"""
    done = subprocess.run([sys.executable, "-c", code, *modules()], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_core_needs_torch_numpy_and_scipy_alone():
    """And neither the core knows of training and pages, nor training of pages."""
    code = """
import sys
import {names}
print([n for n in sys.modules if n.startswith({never}) or n in ("matplotlib", "sklearn", "PIL", "torchvision", "safetensors") and not {some}])
"""
    core = [
        name
        for name in modules()
        if not name.startswith(("jfb_tutorial.training", "jfb_tutorial.pages", "jfb_tutorial.__main__"))
    ]
    rooms = "('jfb_tutorial.training', 'jfb_tutorial.pages')"
    for names, never, some in ((core, rooms, False), (["jfb_tutorial.training"], "'jfb_tutorial.pages'", True)):
        text = code.format(names=", ".join(names), never=never, some=some)
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"
