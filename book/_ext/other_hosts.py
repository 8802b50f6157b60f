"""Whether the addresses of other hosts that the book and its repository name are still there: `other_hosts.py`, which asks for a network.

It runs on a schedule and in no test. An address that is gone fails; a host that refuses a program, as some publishers do, is named.
Needs nothing but Python.
"""

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
READ = ("*.md", "book/*.md", "book/*.ipynb", "book/course/**/*.md", "book/references.bib", "CITATION.cff")
GONE = (404, 410)

_ADDRESS = re.compile(r"https?://[^\s<>\"'`{}\\…]+")
_EXAMPLES = re.compile(r"https?://(localhost|127\.0\.0\.1|[\w.-]*example\.|host\b)")


def addresses(text: str) -> set[str]:
    """The addresses that a text names, without the stop or the bracket behind them, and without examples."""
    found = set()
    for address in _ADDRESS.findall(text):
        address = address.partition("#")[0].rstrip(".,;:!?*")
        while address.endswith(")") and address.count(")") > address.count("("):
            address = address[:-1].rstrip(".,;:")
        if not _EXAMPLES.match(address):
            found.add(address)
    return found


def named(root: Path = ROOT) -> dict[str, list[str]]:
    """Every address, with the files that name it; of a notebook what stands in its cells, not what they have printed."""
    found: dict[str, list[str]] = {}
    for path in sorted({path for pattern in READ for path in root.glob(pattern)}):
        if "_build" in path.parts:
            continue
        text = path.read_text()
        if path.suffix == ".ipynb":
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        for address in addresses(text):
            found.setdefault(address, []).append(path.relative_to(root).as_posix())
    return found


def ask(address: str) -> str:
    """Nothing if the address answers, else what it said."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (a check of links, once a week)"})
    try:
        with urllib.request.urlopen(request, timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        return str(getattr(error, "reason", error))


def check(found: dict[str, list[str]], answer: Callable[[str], str] = ask) -> tuple[list[str], list[str]]:
    """The addresses that are gone, and those that could not be asked, each with its answer and where it is named."""
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(found, pool.map(answer, found), strict=True))
    lines = {address: f"{address}: {said}, in {', '.join(found[address])}" for address, said in answers.items() if said}
    gone = {address for address in lines if answers[address] in map(str, GONE) or "not known" in answers[address]}
    return _of(lines, gone), _of(lines, lines.keys() - gone)


def _of(lines: dict[str, str], which: Iterable[str]) -> list[str]:
    return [lines[address] for address in sorted(which)]


def main() -> int:
    found = named()
    gone, unsure = check(found)
    print(f"{len(found)} addresses, {len(gone)} gone, {len(unsure)} that do not say")
    for title, lines in (("Gone:", gone), ("Not known:", unsure)):
        print("\n  ".join([title, *lines]) if lines else f"{title} none")
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main())
