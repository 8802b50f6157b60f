"""Of what Colab has installed, a list of `pip freeze`, the versions of what the chapters import: `colab_versions.py FREEZE`, as constraints."""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def normal(name: str) -> str:
    """A package's name as all spellings of it are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(project: dict) -> set[str]:
    """What running the chapters takes."""
    lines = [*project["dependencies"], *project["optional-dependencies"]["notebooks"]]
    return {normal(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]) for line in lines}


def constraints(freeze: str, names: set[str]) -> list[str]:
    """`torch==2.9.0` for each of these that is there, be it written `torch==2.9.0+cu126` or `torch @ https://…/torch-2.9.0%2Bcu126-….whl`."""
    found = {}
    for line in freeze.splitlines():
        pinned = re.match(r"([\w.-]+)\s*(?:==\s*|@\s*\S*/[\w.]+-)(\d[\w.]*?)(?:\+|%2B|-|\s|$)", line)
        if pinned and normal(pinned[1]) in names:
            found[normal(pinned[1])] = pinned[2]
    return [f"{name}=={version}" for name, version in sorted(found.items())]


if __name__ == "__main__":
    project = tomllib.loads(PROJECT.read_text())["project"]
    lines = constraints(Path(sys.argv[1]).read_text(), wanted(project))
    if not any(line.startswith("torch==") for line in lines):
        sys.exit(f"{sys.argv[1]} names no torch: is it a list of pip freeze?")
    print("\n".join(lines))
