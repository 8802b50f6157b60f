"""What the roles of a chapter's text stand for in its editions: citations, references, numbers and times as plain Markdown."""

import re
import unicodedata
from pathlib import Path

from pybtex.database import BibliographyData, Entry, parse_file
from pybtex.richtext import Text

from chapters import BOOK, chapter_time, figures, named_values, notebooks

_WORDS = re.compile(r"(?P<words>.*?)\s*<(?P<target>[^<>]+)>", re.DOTALL)


def roles(path: Path) -> dict:
    """For each role of a chapter, what makes Markdown of its text."""
    numbers = named_values(path)
    bibliography = parse_file(BOOK / "references.bib", "bibtex")
    return {
        "cite": lambda keys: _citation(bibliography, keys),
        "chapter-time": chapter_time,
        "glue:text": lambda name: numbers[name],
        "ref": _reference_to,
        "prf:ref": _reference_to,
        "numref": _reference_to_figure,
    }


def _reference_to(text: str) -> str:
    """A link: `words <target>`, or a target alone, whose section then gives the words."""
    found = _WORDS.fullmatch(text)
    return f"[{found['words']}](#{found['target']})" if found else f"[](#{text})"


def _reference_to_figure(text: str) -> str:
    found = _WORDS.fullmatch(text)
    name = found["target"] if found else text
    numbers = {figure.name: figure.number for path in notebooks() for figure in figures(path)}
    if name not in numbers:
        raise ValueError(
            f"{{numref}}`{text}` names no figure of the book; its figures are {', '.join(numbers) or 'none'}"
        )
    words = found["words"].replace("%s", "{number}") if found else "Figure {number}"
    return f"[{words.replace('{number}', numbers[name])}](#{name})"


def _citation(bibliography: BibliographyData, keys: str) -> str:
    return "[" + "; ".join(_work_cited(bibliography.entries[key.strip()]) for key in keys.split(",")) + "]"


def _work_cited(entry: Entry) -> str:
    """Authors and year, linked to the work where the bibliography has an address."""
    names = [_plain(" ".join(person.prelast_names + person.last_names)) for person in entry.persons["author"]]
    who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
    text, fields = f"{who}, {entry.fields['year']}", entry.fields
    address = f"https://doi.org/{fields['doi']}" if "doi" in fields else fields.get("url")
    return f"[{text}]({address})" if address else text


def _plain(latex: str) -> str:
    return unicodedata.normalize("NFC", str(Text.from_latex(latex)))
