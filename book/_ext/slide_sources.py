"""What the chapters, the quizzes and the plan of a session have under a name; a name that is not there is a ValueError."""

import base64
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import yaml

import chapters
import references

# What is found in the chapters


def find_figure(name: str) -> tuple[bytes, str, str]:
    """A figure's picture, as SVG where there is one, the ending of its file, and its alternative text."""
    for path in chapters.notebooks():
        for figure in chapters.figures(path):
            if figure.name == name and not figure.file:
                outputs = chapters.cells(path)[figure.cell]["outputs"]
                stored = next(output["data"] for output in outputs if "image/png" in output.get("data", {}))
                alt = "".join(stored["text/plain"])
                drawing = chapters.BOOK / "figures" / f"{name}.svg"
                if drawing.is_file():
                    return drawing.read_bytes(), "svg", alt
                return base64.b64decode("".join(stored["image/png"])), "png", alt
    raise ValueError("no chapter draws a figure of this name")


_PROOF = re.compile(
    r"^(?P<mark>`{3,}|:{3,})\{prf:(?P<kind>\w+)\}(?P<title>[^\n]*)\n(?P<options>(?::[^\n]*\n)*)(?P<body>.*?)^(?P=mark) *$",
    re.MULTILINE | re.DOTALL,
)


def find_theorem(name: str) -> tuple[str, str]:
    """The title and the Markdown of a theorem."""
    for path in chapters.notebooks():
        text = chapters.text(path)
        for proof in _PROOF.finditer(text):
            targets = re.search(r"((?:^\([\w.-]+\)=\n+)*)\Z", text[: proof.start()], re.MULTILINE)
            names = re.findall(r"\(([\w.-]+)\)=", targets[1] if targets else "")
            if name in (*names, *re.findall(r"^:label: *(\S+)", proof["options"], re.MULTILINE)):
                title = proof["title"].strip()
                # of a theorem with a number in its paper the title says the kind
                kind = proof["kind"].capitalize()
                return title if kind in title else f"{kind}: {title}", plain(path, proof["body"])
    raise ValueError("no chapter has a theorem of this label")


def find_equation(name: str) -> str:
    """A displayed formula, as Markdown."""
    formula = re.compile(
        rf"^\({re.escape(name)}\)=\s*(?:\([\w.-]+\)=\s*)*(\$\$.*?\$\$|\\begin\{{align\*?\}}.*?\\end\{{align\*?\}})",
        re.MULTILINE | re.DOTALL,
    )
    for path in chapters.notebooks():
        if found := formula.search(chapters.text(path)):
            return found[1]
    raise ValueError("no chapter has a formula with this target")


def find_claim(name: str) -> dict[str, str]:
    """What a claim states, its mark and how it was tested, as HTML."""
    for path in chapters.notebooks():
        for cell in chapters.cells(path):
            for output in cell.get("outputs", []):
                claim = output.get("data", {}).get(chapters.CLAIM, {})
                if claim.get("identifier") == name:
                    line = re.search(r"<summary>(.*?)</summary>", "".join(output["data"]["text/html"]), re.DOTALL)[1]
                    # of a quiet one the line has the mark and how it was tested, without the sentence
                    tested = re.search(r"<small>(.*)</small>", line) or re.search(r"</span>(.*)", line)
                    mark = re.search(r"<span>(.*?)</span>", line)[1]
                    return {
                        "states": escape(claim["states"]),
                        "verdict": claim["verdict"],
                        "mark": mark,
                        "tested": tested[1].strip(),
                    }
    raise ValueError("no chapter checks a claim of this name")


def find_value(name: str) -> str:
    """A number as a cell has written it; the name is 05/up."""
    number, _, value = name.partition("/")
    for path in chapters.notebooks():
        if path.stem.startswith(f"{number}-"):
            named = chapters.named_values(path)
            if value not in named:
                raise ValueError(f"no cell of chapter {number} names this value")
            return named[value]
    raise ValueError("write chapter and name, as in 05/up")


def find_exercise(name: str) -> str:
    """Its number and its title."""
    for path in chapters.notebooks():
        for number, (label, title) in enumerate(chapters.exercises(path).items(), 1):
            if label == name:
                return f"{int(path.stem[:2])}.{number} {title}"
    raise ValueError("no chapter has an exercise of this label")


def find_table(caption: str) -> str:
    """A table as HTML, by its caption."""
    for path in chapters.notebooks():
        for html in _html_outputs(path):
            if "<table" in html and f"<caption>{escape(caption)}</caption>" in html:
                return html
    raise ValueError("no chapter shows a table with this caption")


def _html_outputs(path: Path) -> Iterator[str]:
    for cell in chapters.cells(path):
        for output in cell.get("outputs", []):
            yield "".join(output.get("data", {}).get("text/html", ""))


def find_printed(anchor: str) -> str:
    """What the cells under a heading print."""
    for path in chapters.notebooks():
        here, printed = False, ""
        for cell in chapters.cells(path):
            if cell["cell_type"] == "markdown":
                for heading in re.findall(r"^#{1,6} +(.+)$", "".join(cell["source"]), re.MULTILINE):
                    here = references.slug(heading) == anchor
            elif here:
                streams = [output for output in cell["outputs"] if output["output_type"] == "stream"]
                printed += "".join("".join(output["text"]) for output in streams)
        if printed:
            return printed.strip()
    raise ValueError("under no heading with this anchor does a chapter print anything")


def find_code(start: str) -> str:
    """The code of the visible cell that starts so."""
    for path in chapters.notebooks():
        for cell in chapters.cells(path):
            code, tags = "".join(cell["source"]), set(cell["metadata"].get("tags", []))
            if cell["cell_type"] == "code" and not tags & {"hide-input", "remove-input"} and code.startswith(start):
                return code
    raise ValueError("no visible cell of a chapter starts so")


def find_explorer(call: str) -> str:
    """The stored HTML of an explorer, by the code that calls it."""
    for path in chapters.notebooks():
        for cell in chapters.cells(path):
            code = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
            # a call may be broken into lines
            if re.sub(r"\s", "", code).endswith(re.sub(r"\s", "", call)):
                for output in cell["outputs"]:
                    html = "".join(output.get("data", {}).get("text/html", ""))
                    if 'class="jfb-explorer"' in html:
                        return html
    raise ValueError("no chapter shows an explorer by this call")


def plain(path: Path, text: str) -> str:
    """Markdown of a chapter without what leads away from it: links keep their words, numbers stand where they are named."""
    numbers = chapters.named_values(path)
    text = re.sub(r"\{glue:text\}`([\w-]+)`", lambda found: numbers[found[1]], text)
    text = re.sub(r" ?\{cite\}`[^`]*`", "", text)
    text = re.sub(r"\{(?:prf:)?(?:num)?ref\}`([^`<]+?)(?: *<[^`]*>)?`", r"\1", text)
    text = re.sub(r"^\([\w.-]+\)=\n", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\([^)\s]*\)", r"\1", text)


# What is found in the plan of a session, and in the quizzes


def find_vote(name: str, plan: Path) -> dict[str, Any]:
    """A question, its choices with whether each is right, and what is said of them, for the speaker."""
    if name.startswith("quiz-"):
        return _quiz_question(name)
    text = plan.read_text() if plan.is_file() else ""
    vote = re.search(rf"^### {re.escape(name)}\b[^\n]*\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    if not vote:
        raise ValueError(f"{plan.name} has no vote of this name")
    before, _, after = vote[1].partition("**Answer: ")
    question, *choices = re.split(r"^- \*\*[A-D]\.\*\* ", before.strip(), flags=re.MULTILINE)
    right = "ABCD".index(after[0])
    return {
        "question": question.strip(),
        "choices": [(" ".join(choice.split()), number == right) for number, choice in enumerate(choices)],
        "said": "Answer: " + after.strip(),
    }


def _quiz_question(name: str) -> dict[str, Any]:
    path = chapters.BOOK / "course" / "quiz" / f"{name[5:7]}.yml"
    for question in yaml.safe_load(path.read_text()) if path.is_file() else ():
        if question["id"] == name:
            said = [
                f"{letter}: {choice['feedback']}" for letter, choice in zip("ABCD", question["choices"], strict=False)
            ]
            return {
                "question": question["question"],
                "choices": [(choice["text"], choice["right"]) for choice in question["choices"]],
                "said": "\n".join(said),
            }
    raise ValueError("there is no question of this name")


def find_block(words: str, plan: Path) -> tuple[int, str]:
    """When a slide begins, in minutes; and the words, with a block of the plan in full or nothing after the clock."""
    clock = re.fullmatch(r"(\d\d):(\d\d)(?:–\d\d:\d\d .+)?", words)
    if not clock:
        raise ValueError("write 00:08, or a block of the plan as its heading has it, 00:08–00:25 and its name")
    if "–" in words and f"## {words}\n" not in (plan.read_text() if plan.is_file() else ""):
        raise ValueError(f"{plan.name} has no block with this heading")
    return 60 * int(clock[1]) + int(clock[2]), words
