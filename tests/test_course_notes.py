"""The notes for teachers in one PDF: every chapter's, formulas set, and no link to a file of the machine that printed it."""

import re
import sys

import pytest
from conftest import BOOK

sys.path.insert(0, str(BOOK / "_ext"))

import course_notes

NOTES = sorted((BOOK / "course" / "notes").glob("*.md"))


def test_the_notes_are_printed_in_one_file(site, browser, tmp_path):
    file = course_notes.gathered(site, tmp_path / "notes.html")
    html = file.read_text()
    titles = [path.read_text().partition("\n")[0].lstrip("# ") for path in NOTES]
    found = [re.sub(r"<[^>]*>", "", title) for title in re.findall(r"<h1>(.*?)</h1>", html, re.DOTALL)]
    assert found == titles
    assert "<a " not in html
    page = browser.new_page()
    page.set_default_timeout(120_000)
    pdf = course_notes.print_pdf(page, file).read_bytes()
    assert page.locator("mjx-container").count() > 100
    assert page.locator("mjx-merror, .MathJax_Error").count() == 0
    # each chapter begins a page, and is no book
    assert len(NOTES) <= len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) <= 4 * len(NOTES)
    assert b"/URI" not in pdf
    page.close()


def test_a_site_without_notes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no notes: course/notes is missing"):
        course_notes.gathered(tmp_path, tmp_path / "notes.html")
