"""The front page: what it promises of each chapter, and where it leads."""

import re

import front_page
import pytest
from conftest import BOOK, CHAPTERS

INDEX = (BOOK / "index.md").read_text()
MAP = re.search(r"```\{chapter-map\}\n(.*?)```", INDEX, re.DOTALL)


def test_the_map_has_every_chapter_once_with_its_times(open_page, site):
    assert MAP
    said = front_page.promises(MAP[1].splitlines())
    there = {path.stem[:2] for path in CHAPTERS}
    assert there <= said.keys()
    page = open_page(site / "index.html", formulas=False, width=390)
    lines = page.locator(".jfb-map li").all_inner_texts()
    assert len(lines) == len(there)
    for path, line in zip(CHAPTERS, lines, strict=True):
        assert line.startswith(f"{int(path.stem[:2])} ")
        assert said[path.stem[:2]].split()[0] in line
        assert re.search(r"\d+\smin\sto\sread, \d+\ss\sto\srun$", line), line
    waiting = re.findall(
        r"\d+", page.locator(".jfb-map ~ p", has_text="Being written").inner_text() if said.keys() - there else ""
    )
    assert {f"{int(number):02}" for number in waiting} == said.keys() - there


def test_a_line_of_the_map_is_a_chapter_and_its_promise():
    assert front_page.promises(["01: one: two", "", "10: three"]) == {"01": "one: two", "10": "three"}
    with pytest.raises(ValueError, match="`05: what it gives you`, got '5: short'"):
        front_page.promises(["5: short"])
    with pytest.raises(ValueError, match="chapter 03 has two lines"):
        front_page.promises(["03: a", "03: b"])


def test_the_page_says_what_to_do_with_five_minutes_an_hour_and_a_course():
    section = INDEX.partition("## How much time do you have?")[2].partition("\n## ")[0]
    assert re.findall(r"^\*\*(.+?)\.\*\*", section, re.MULTILINE) == ["Five minutes", "An hour", "A course"]
    assert len(re.findall(r"\]\(", section)) == 3
    paths = INDEX.partition("## Short paths")[2].partition("\n## ")[0]
    assert re.findall(r"^- \*\*(.+?):\*\*", paths, re.MULTILINE) == [
        "Learn it",
        "Use it",
        "Teach it",
        "Check the papers",
    ]
    assert len(INDEX.split()) < 1100


def test_a_book_without_parts_has_a_map_too(monkeypatch, tmp_path):
    monkeypatch.setattr(front_page, "BOOK", tmp_path)
    (tmp_path / "_toc.yml").write_text("root: index\nchapters: [{file: 01-one}, {file: figures}]\n")
    assert front_page.parts() == [("", ["01-one"])]
