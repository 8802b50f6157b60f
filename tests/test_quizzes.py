"""The questions in the pages: answered from the keyboard on a phone, read aloud, and the same in the editions."""

import re
import sys

import pytest
from conftest import BOOK, CHAPTERS, grave_violations

sys.path.insert(0, str(BOOK / "_ext"))

import editions
import quizzes

ONE = "05-jacobian-free-backpropagation"


@pytest.fixture
def quiz(open_page, site):
    """The questions of a chapter on a phone, without the chapter's formulas."""
    page = open_page(site / f"{ONE}.html", width=390, formulas=False)
    return page.locator(".jfb-quiz")


def test_a_question_is_answered_from_the_keyboard(quiz):
    page = quiz.page
    first = quiz.locator("fieldset").first
    answers = first.locator("input")
    shown = first.locator(".jfb-feedback:visible")
    assert shown.count() == 0
    answers.first.focus()
    page.keyboard.press("Space")
    assert answers.nth(0).is_checked()
    assert shown.count() == 1
    right = [value == "right" for value in answers.evaluate_all("all => all.map(each => each.value)")].index(True)
    for _ in range(right):
        page.keyboard.press("ArrowDown")
    assert answers.nth(right).is_checked()
    # one answer at a time, and what is shown is what stands under it
    assert shown.count() == 1
    assert shown.inner_text().startswith("Right.")
    assert quiz.get_by_role("status").inner_text() == f"Right. 1 of {quiz.locator('fieldset').count()} right."


def test_a_wrong_answer_says_so_and_leads_back_to_the_text(quiz):
    question = quiz.locator("fieldset").nth(1)
    question.locator("input[value=wrong]").first.check()
    said = question.locator(".jfb-feedback:visible")
    assert said.inner_text().startswith("Not yet.")
    assert quiz.get_by_role("status").inner_text().startswith("Not yet; below the answer stands why. 0 of ")
    target = said.locator("a").last.get_attribute("href")
    assert quiz.page.locator(target).count() == 1


def test_a_question_is_a_named_group_that_fits_a_phone(quiz):
    page = quiz.page
    groups = page.get_by_role("group")
    names = [each["id"] for each in quizzes.questions(ONE)]
    assert quiz.locator("fieldset").evaluate_all("all => all.map(each => each.id)") == names
    assert groups.count() >= len(names)
    assert quiz.evaluate("each => each.scrollWidth <= each.clientWidth")
    quiz.locator("input").first.check()
    assert not grave_violations(page)


def test_answers_of_another_day_are_not_there_any_more(quiz):
    quiz.locator("input").first.check()
    quiz.page.reload()
    assert quiz.page.locator(".jfb-quiz input:checked").count() == 0


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem[:2])
def test_every_chapter_asks_before_its_exercises(chapter, site):
    html = (site / f"{chapter.stem}.html").read_text()
    asked = quizzes.questions(chapter.stem)
    assert html.count("<fieldset") == len(asked) == 5
    assert html.index(f'id="{asked[0]["id"]}"') < html.index('id="exercises"')
    for question in asked:
        # each answer has its button, and its feedback
        assert html.count(f'name="{question["id"]}"') == len(question["choices"])
        assert f'href="#{question["section"]}"' in html


def test_an_edition_without_directives_has_the_questions_with_folded_answers():
    notebook, _ = editions.work_edition(BOOK / f"{ONE}.ipynb")
    (text,) = (cell.source for cell in notebook.cells if "## Five questions" in cell.source)
    assert "{quiz}" not in text
    for question in quizzes.questions(ONE):
        assert " ".join(question["question"].split()) in text
    assert text.count("<details>") == text.count("</details>") == 5
    before, _, folded = text.partition("<details>")
    assert "Right." not in before
    assert "Right." in folded


def test_a_page_without_questions_is_named():
    with pytest.raises(ValueError, match=r"99-none asks for a quiz, and there is no book/course/quiz/99\.yml"):
        quizzes.questions("99-none")


def test_a_name_in_a_page_for_teaching_leads_to_what_it_names(site):
    page = (site / "course" / "session-1.html").read_text()
    links = re.findall(r'href="\.\./([^"#]+)#([^"]+)"><code', page)
    assert {"fig-01-networks", "ex-01-quadratic"} <= {anchor for _, anchor in links}
    for file, anchor in links:
        assert f'id="{anchor}"' in (site / file).read_text(), anchor
