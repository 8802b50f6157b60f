"""An exercise that checks itself: what is asked, what a right answer does, which mistakes are known, and three hints.

A check is written as properties. A part of an answer has a truth, computed from the package when it is needed, and wrong answers by
name: an answer that does what a wrong one does has made that mistake. What cannot be compared with one truth, a construction, has
properties of its own::

    Exercise(
        "ex-11-turn",
        parts=(
            Part("terms", Whole(), "how many terms leave a tenth", truth=lambda g: …, mistakes=(
                Mistake("natural-logarithm", "…", answer=lambda g: …),
            )),
        ),
        shows="…", hints=("…", "…", "…"),
    )
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .kinds import Function, Kind, is_blank
from .running import Nothing, Stopped, guard, in_words
from .said import Verdict

__all__ = ["Answer", "Exercise", "Given", "Mistake", "Part", "Property"]

Given = Mapping[str, Any]
"""The numbers that an exercise gives; those of the book, or drawn for a sheet."""
Answer = Mapping[str, Any]
"""The parts of an answer that were read, by name."""


@dataclass(frozen=True)
class Mistake:
    """A way to be wrong that is known.

    Args:
        name: such as `through-the-iteration`.
        says: what the student reads; which property fails, and what kind of mistake that usually is. Never the answer.
        answer: a wrong answer for these givens; whoever answers, or whose function does, the same has made the mistake.
        made: or a test of the answer.
    """

    name: str
    says: str
    answer: Callable[[Given], Any] | None = None
    made: Callable[[Answer, Given], bool] | None = None


@dataclass(frozen=True)
class Part:
    """One thing that is handed in.

    Args:
        name: its key in the answer.
        kind: its form.
        what: what it is, in a few words.
        truth: the right answer for these givens; without one the exercise's properties decide.
        example: one of the right answers, where there is no truth, or where the truth breaks a property.
        observe: what is compared of an answer, for a function: what it returns on fresh instances.
        mistakes: looked for in this order.
        otherwise: what is said of a wrong answer that no mistake explains.
    """

    name: str
    kind: Kind
    what: str
    truth: Callable[[Given], Any] | None = None
    example: Callable[[Given], Any] | None = None
    observe: Callable[[Any, Given], Any] = lambda value, given: value
    mistakes: Sequence[Mistake] = ()
    otherwise: str = ""


@dataclass(frozen=True)
class Property:
    """What must hold of some parts together.

    Args:
        of: the names of the parts.
        holds: the test.
        otherwise: what is said if it does not hold and no mistake explains it.
        mistakes: looked for first.
    """

    of: Sequence[str]
    holds: Callable[[Answer, Given], bool]
    otherwise: str
    mistakes: Sequence[Mistake] = ()


@dataclass(frozen=True)
class Exercise:
    """An exercise and its check.

    Args:
        label: in the book, `ex-05-layer`.
        parts: what is handed in. A single part may be handed in by itself, several are a dictionary.
        shows: one sentence, what a right answer shows.
        hints: three, each saying more than the one before.
        properties: of several parts together.
        given: the numbers of the book.
        draw: other numbers, for a sheet; `random.Random` in, a mapping with the same keys out.
        question: what a sheet asks, Markdown, for these givens.
    """

    label: str
    parts: Sequence[Part]
    shows: str
    hints: tuple[str, str, str]
    properties: Sequence[Property] = ()
    given: Given = field(default_factory=dict)
    draw: Callable[[random.Random], Given] | None = None
    question: Callable[[Given], str] | None = None

    @property
    def asks(self) -> str:
        """What to hand in, and in which form."""
        if len(self.parts) == 1:
            (part,) = self.parts
            return f"Hand in {part.what}: {part.kind.form}."
        return "Hand in a dictionary: " + "; ".join(f"`{p.name}`, {p.what} ({p.kind.form})" for p in self.parts) + "."

    def stub(self, call: str = 'check("{label}", answer)', target: str = "answer") -> str:
        """The source of a cell to answer in."""
        functions = [part for part in self.parts if isinstance(part.kind, Function)]
        lines = [f"# Fill in each ..., then run the cell; hint({self.label!r}) helps".replace("'", '"')]
        lines += ["from jfb_tutorial.pages.exercises import check, hint", ""]
        for part in functions:
            lines += ["", f"def {part.name}({part.kind.arguments}):"]  # type: ignore[attr-defined]
            lines += [f"    ...  # {part.what}: returns {part.kind.returns}", ""]  # type: ignore[attr-defined]
        if functions:
            lines.append("")
        if len(self.parts) == 1:
            (part,) = self.parts
            lines.append(f"{target} = {part.name}" if functions else f"{target} = ...  # {part.what}: {part.kind.form}")
        else:
            lines.append(f"{target} = {{")
            for part in self.parts:
                if part in functions:
                    lines.append(f'    "{part.name}": {part.name},')
                else:
                    lines.append(f'    "{part.name}": ...,  # {part.what}: {part.kind.form}')
            lines.append("}")
        if call:
            lines.append(call.format(label=self.label))
        return "\n".join(lines)

    def right(self, given: Given | None = None) -> dict[str, Any]:
        """A right answer, by the names of its parts; those are left out of which none is written down here."""
        numbers = self.given if given is None else given
        with guard():
            return {part.name: find(numbers) for part in self.parts if (find := part.example or part.truth)}

    def check(self, answer: Any, given: Given | None = None) -> Verdict:
        """What is found of an answer."""
        numbers = self.given if given is None else given
        with guard():
            return self._check(answer, numbers)

    def form(self, answer: Any) -> Verdict:
        """Whether an answer has the form that is asked for; nothing of whether it is right."""
        try:
            values = self._taken_apart(answer)
        except Stopped as stop:
            return self._no((f"Not yet. {stop}", self.asks), {})
        faults = []
        for part in self.parts:
            try:
                if not is_blank(values[part.name]):
                    part.kind.read(values[part.name], part.name)
            except Stopped as stop:
                faults.append(str(stop))
        if faults:
            return self._no((f"Not yet. {faults[0]}", *faults[1:]), {})
        if blank := [part.name for part in self.parts if is_blank(values[part.name])]:
            return self._no((f"Still open: {_listed(blank)}.", self.asks), {})
        return Verdict(self.label, True, ("This has the form that is asked for.",))

    # How a check goes: read the parts, then each part by its truth, then the properties

    def _check(self, answer: Any, given: Given) -> Verdict:
        try:
            values = self._taken_apart(answer)
        except Stopped as stop:
            return self._no((f"Not yet. {stop}", self.asks), {})
        read: dict[str, Any] = {}
        faults: dict[str, str] = {}
        names: list[str] = []
        empty: list[str] = []
        for part in self.parts:
            if is_blank(values[part.name]):
                continue
            try:
                read[part.name] = part.kind.read(values[part.name], part.name)
                if fault := self._fault(part, read, given, names):
                    faults[part.name] = fault
            except Nothing as stop:
                del read[part.name]
                empty.append(str(stop))
            except Stopped as stop:
                faults[part.name] = str(stop)
        waiting: set[str] = set()
        for each in self.properties:
            # one thing at a time: a part that is wrong already is not asked for more, and the others of this property wait
            if not all(name in read and name not in faults for name in each.of):
                waiting.update(each.of)
                continue
            try:
                if fault := self._broken(each, read, given, names):
                    faults.update(dict.fromkeys(each.of, fault))
            except Nothing as stop:
                for name in each.of:
                    del read[name]
                empty.append(str(stop))
        right = {
            part.name: part.name in read and part.name not in faults and part.name not in waiting for part in self.parts
        }
        blank = [part.name for part in self.parts if part.name not in read and part.name not in faults]
        if len(blank) == len(self.parts):
            said = [f"Still open. {self.asks}", f"Hint 1 of 3: {self.hints[0]}"]
            return self._no([*said, f'`hint("{self.label}", 2)` says more.'], right)
        return self._said(right, [*faults.values(), *empty], blank, names)

    def _taken_apart(self, answer: Any) -> dict[str, Any]:
        names = [part.name for part in self.parts]
        if is_blank(answer):
            return dict.fromkeys(names)
        if isinstance(answer, Mapping):
            if unknown := [key for key in answer if key not in names]:
                raise Stopped(f"`{unknown[0]}` is no part of this answer.")
            return {name: answer.get(name) for name in names}
        if len(names) == 1:
            return {names[0]: answer}
        raise Stopped("The answer has several parts, and what came is not a dictionary.")

    def _fault(self, part: Part, read: Mapping[str, Any], given: Given, names: list[str]) -> str:
        """What is wrong with a part by its truth, or nothing."""
        if part.truth is None:
            return ""
        seen = _observed(part, read[part.name], given)
        if part.kind.same(seen, self._expected(part, part.truth, given)):
            return ""
        for mistake in part.mistakes:
            if self._made(part, mistake, seen, read, given):
                names.append(mistake.name)
                return mistake.says
        if part.otherwise:
            return part.otherwise
        if isinstance(part.kind, Function):
            return f"`{part.name}` returns something else on fresh instances: try it on a case that you can do by hand."
        return f"`{part.name}` is not right yet."

    def _made(self, part: Part, mistake: Mistake, seen: Any, read: Answer, given: Given) -> bool:
        if mistake.answer is not None:
            return part.kind.same(seen, self._expected(part, mistake.answer, given))
        return mistake.made is not None and bool(mistake.made(read, given))

    def _expected(self, part: Part, answer: Callable[[Given], Any], given: Given) -> Any:
        return _observed(part, part.kind.read(answer(given), part.name), given)

    def _broken(self, prop: Property, read: Answer, given: Given, names: list[str]) -> str:
        """What is said of a property that does not hold, or nothing."""
        try:
            torch.manual_seed(0)
            if prop.holds(read, given):
                return ""
            for mistake in prop.mistakes:
                torch.manual_seed(0)
                if mistake.made is not None and mistake.made(read, given):
                    names.append(mistake.name)
                    return mistake.says
        except Nothing:
            raise
        except Stopped as stop:
            return str(stop)
        except Exception as error:
            return f"This could not be tried: {in_words(error)}"
        return prop.otherwise

    def _said(self, right: dict[str, bool], faults: list[str], blank: list[str], names: list[str]) -> Verdict:
        if all(right.values()):
            return Verdict(self.label, True, (f"Right. {self.shows}",), right)
        good = [name for name, yes in right.items() if yes]
        lines = list(dict.fromkeys(faults))
        if lines:
            lines[0] = f"Not yet. {lines[0]}"
        if good and len(self.parts) > 1:
            lines.append(f"{_listed(good)} {'is' if len(good) == 1 else 'are'} right.")
        if blank:
            lines.append(f"Still open: {_listed(blank)}.")
        if faults:
            lines.append(f'Stuck? `hint("{self.label}")`')
        return Verdict(self.label, False, tuple(lines), right, tuple(names))

    def _no(self, lines: Sequence[str], right: Mapping[str, bool]) -> Verdict:
        return Verdict(self.label, False, tuple(lines), right or {part.name: False for part in self.parts})


def _observed(part: Part, value: Any, given: Given) -> Any:
    torch.manual_seed(0)  # the same instances for every answer
    try:
        return part.observe(value, given)
    except Stopped:
        raise
    except Exception as error:
        # what came back could not be used, such as a gradient of something without a graph
        raise Stopped(f"What `{part.name}` gives could not be used: {in_words(error)}") from error


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
