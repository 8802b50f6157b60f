"""What a stranger finds who wants to ask, to report or to change something; the weekly checks; and the spelling."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib

import other_hosts
import pytest
import yaml
from conftest import ROOT

FORMS = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
NAMES_AND_WORDS = ["Teh", "Bu", "Musil", "Juli", "quations", "fro", "caf"]
"""What is spelt right: people, a product of two matrices, a norm, a title between braces, the end of a word that a test cuts."""


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_page_and_version(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    fields = {field["id"]: field for field in form["body"] if "id" in field}
    assert len(fields) == len([field for field in form["body"] if field["type"] != "markdown"])
    for name in ("page", "version"):
        assert fields[name]["validations"]["required"] is True
    for field in form["body"]:
        assert field["type"] in ("input", "textarea", "dropdown", "checkboxes", "markdown")
        assert field["attributes"].get("label") or field["type"] == "markdown"


def test_there_are_forms_for_a_mistake_for_code_and_for_a_question():
    assert {path.stem for path in FORMS} == {"mistake", "code", "question"}
    assert "code of conduct" in (ROOT / "CONTRIBUTING.md").read_text().lower()
    assert "maintainer" in (ROOT / "CODE_OF_CONDUCT.md").read_text()


def test_every_week_all_chapters_run_in_the_newest_versions_and_in_colabs():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "versions.yml").read_text())
    assert workflow[True]["schedule"][0]["cron"]  # YAML 1.1 reads `on` as true
    commands = {name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in workflow["jobs"].items()}
    assert "make chapters CONSTRAINTS= NBVAL=--nbval-lax" in commands["newest"]
    assert "make chapters CONSTRAINTS=colab.txt NBVAL=--nbval-lax" in commands["colab"]
    assert "other_hosts.py" in commands["links"]
    rules = (ROOT / "Makefile").read_text()
    assert re.search(r"^chapters: \.venv/ready\n\t.*pytest \$\(NBVAL\).*\$\(NOTEBOOKS\)$", rules, re.MULTILINE)


def test_what_colab_has_becomes_constraints():
    place = ROOT / ".ci" / "colab_versions.py"
    spec = importlib.util.spec_from_file_location("colab_versions", place)
    assert spec
    assert spec.loader
    colab = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(colab)
    freeze = """\
absl-py==1.4.0
Pillow==11.3.0
scikit-learn==1.6.1
torch @ https://example.org/whl/cu126/torch-2.9.0%2Bcu126-cp312-cp312-linux_x86_64.whl
torchvision==0.24.0+cu126
"""
    names = colab.wanted(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])
    assert {"torch", "scikit-learn", "jupyterlab"} <= names
    assert colab.constraints(freeze, names) == [
        "pillow==11.3.0",
        "scikit-learn==1.6.1",
        "torch==2.9.0",
        "torchvision==0.24.0",
    ]
    done = subprocess.run([sys.executable, place, ROOT / "CITATION.cff"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "names no torch" in done.stderr


def test_addresses_are_found_without_the_stop_behind_them():
    text = "see https://a.org/x_(y). Or (https://b.org/z), <https://c.org#part>; not https://example.org/q nor http://localhost:8000."
    assert other_hosts.addresses(text) == {"https://a.org/x_(y)", "https://b.org/z", "https://c.org"}
    assert "https://creativecommons.org/licenses/by/4.0/" in other_hosts.named()


def test_an_address_that_is_gone_fails_and_one_that_refuses_is_named():
    found = {"https://a.org": ["x.md"], "https://b.org": ["y.md", "z.md"], "https://c.org": ["x.md"]}
    gone, unsure = other_hosts.check(found, {"https://a.org": "", "https://b.org": "404", "https://c.org": "403"}.get)
    assert gone == ["https://b.org: 404, in y.md, z.md"]
    assert unsure == ["https://c.org: 403, in x.md"]


def test_the_paper_says_what_a_journal_asks_for():
    _, head, text = (ROOT / "paper.md").read_text().split("---\n", 2)
    about = yaml.safe_load(head)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert [author["name"] for author in about["authors"]] == [author["name"] for author in citation["authors"]]
    assert len(text.split()) <= 1000
    for heading in (
        "Summary",
        "Statement of need",
        "Learning objectives",
        "Content",
        "Instructional design",
        "Story of the project",
    ):
        assert re.search(rf"^# {heading}$", text, re.MULTILINE), heading
    cited = set(re.findall(r"@(\w+)", text))
    assert len(cited) >= 6
    known = re.findall(r"^@\w+\{(\w+),", (ROOT / about["bibliography"]).read_text(), re.MULTILINE)
    assert cited <= set(known)


def spelt(folder):
    """What codespell finds in a folder, file by file."""
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words-list", ",".join(NAMES_AND_WORDS), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.stdout.replace(f"{folder}/", "").splitlines()


def test_the_spelling(tmp_path):
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        path = ROOT / name
        if "_vendor" in name or "axe" in name or not path.is_file() or name == "tests/test_community.py":
            continue
        if path.suffix == ".ipynb":
            # what is in the cells; what they have printed holds pictures
            text = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
        elif path.suffix in (".md", ".py", ".js", ".css", ".yml", ".toml", ".cff", ".bib", ".html"):
            text = path.read_text()
        else:
            continue
        (tmp_path / name.replace("/", "__")).write_text(text)
    assert spelt(tmp_path) == []


def test_a_misspelling_would_be_found(tmp_path):
    (tmp_path / "page.md").write_text("The network is seperate from its Jacobain.\n")
    assert [line.partition(" ==> ")[0] for line in spelt(tmp_path)] == ["page.md:1: seperate"]
