"""`python -m jfb_tutorial.pages.exercises sheet | key | grade`: problem sheets, their keys and marks, see `--help`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from . import sheets


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jfb_tutorial.pages.exercises", description="Problem sheets by variants."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, make, says in (
        ("sheet", sheets.sheet, "write a sheet, a notebook for students"),
        ("key", sheets.key, "write its key, a notebook for staff"),
    ):
        command = commands.add_parser(name, help=says, description=says)
        command.add_argument("name", help="of the sheet in book/course/problems, such as ps1")
        command.add_argument(
            "--seed", type=int, required=True, help="which draws the numbers; another for each student, or one for all"
        )
        command.add_argument(
            "--out", type=Path, help="the file to write; NAME-SEED.ipynb, for a key NAME-SEED-key.ipynb, if not given"
        )
        command.set_defaults(run=_write, make=make, ending="-key" if name == "key" else "")
    says = "run the notebooks of a folder, each in a process of its own with your rights, and print the points of each"
    command = commands.add_parser("grade", help=says, description=f"{says}. Use an account or a container made for it.")
    command.add_argument(
        "folder", type=Path, help="what was handed in: *.ipynb, also in folders of its own for each student"
    )
    command.add_argument("--csv", type=Path, help="where the table goes; FOLDER/marks.csv if not given")
    command.add_argument(
        "--seconds", type=float, default=120.0, help="after which a notebook is stopped (default: %(default)g)"
    )
    command.add_argument("--sheet", help="the sheet, rather than what the notebooks say")
    command.add_argument("--seed", type=int, help="the seed, rather than what the notebooks say")
    command.set_defaults(run=_grade)
    command = commands.add_parser("mark", description="What grade runs for each notebook.")  # not for readers
    for argument, kind in (("path", Path), ("out", Path), ("sheet", str), ("seed", int)):
        command.add_argument(argument, type=kind)
    command.set_defaults(run=lambda options: sheets.mark(options.path, options.out, options.sheet, options.seed))
    return parser


def _write(options: argparse.Namespace) -> None:
    path = options.out or Path(f"{options.name}-{options.seed}{options.ending}.ipynb")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(options.make(options.name, options.seed), ensure_ascii=False, indent=1) + "\n")
    print(path)


def _grade(options: argparse.Namespace) -> None:
    if not options.folder.is_dir():
        raise ValueError(f"{options.folder} is no folder; name the one with the notebooks that were handed in")
    marks = sheets.grade(options.folder, seconds=options.seconds, name=options.sheet, seed=options.seed)
    width = max(len(each.student) for each in marks)
    for each in marks:
        print(f"{each.student:<{width}}  {each.sheet} {each.seed}  {each.total:g} of {each.of:g}")
        for remark in each.remarks:
            print(f"  {remark}")
    path = options.csv or options.folder / "marks.csv"
    sheets.write_csv(marks, path)
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
