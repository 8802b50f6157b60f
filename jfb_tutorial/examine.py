"""What can be measured of an implicit network of the reader's own, in words: `python -m jfb_tutorial examine mymodule:build`."""

from __future__ import annotations

import copy
import html
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import bench
from ._checks import check_finite
from ._jacobian import buffers_kept
from .gradients import JFB, ImplicitDifferentiation, NeumannSeries, UnrolledPhantom
from .network import ImplicitNetwork
from .network.packing import LatentOperator
from .solvers import Anderson, FixedPointIteration, Solution
from .theory import contraction_factor, criterion, spectral_radius

__all__ = ["Finding", "Report", "examine"]

TIGHT, PATIENCE = 1e-10, 3000
"""The relative residual to which the equilibrium is solved before anything is measured there, and the evaluations spent on it."""
AT_ONE = 3
"""Samples at which norm, radius and criterion are measured, one by one."""
DENSE = 1024
"""Unknowns of a sample up to which the Jacobian is built."""
NUMBERS = 20_000_000
"""Outputs × weights up to which the criterion is computed, and the largest rows that it keeps."""
PLAIN = FixedPointIteration(TIGHT, PATIENCE, relative=True)
"""What finds the equilibrium, and asks of another start whether it ends there, too."""
RULES = (JFB(), NeumannSeries(5), UnrolledPhantom(5, 0.5))
"""What is compared with the exact gradient."""

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Attributes:
        mark: "ok"; "note", good to know; or "MEND", something that keeps the network from being what it is meant to be.
        text: what was found.
        remedy: what to do about it; empty where there is nothing to do.
    """

    mark: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.mark:4}  {self.text}" + (f"\n      → {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, repr=False)
class Report:
    """What `examine` found: lines of text in a terminal, a list in a notebook.

    Attributes:
        findings: in the order in which they were made.
        measured: the numbers in them, by name; one that could not be measured is missing.
    """

    findings: tuple[Finding, ...]
    measured: dict[str, float]

    @property
    def to_mend(self) -> tuple[Finding, ...]:
        """The findings that are marked so."""
        return tuple(finding for finding in self.findings if finding.mark == "MEND")

    def __repr__(self) -> str:
        return "\n".join(map(str, (*self.findings, self._verdict())))

    def _verdict(self) -> str:
        faults = len(self.to_mend)
        if not faults:
            return "Nothing to mend was found."
        if faults == 1:
            return "1 thing to mend."
        return f"{faults} things to mend, the first of them first: the others may go with it."

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<li><strong>{finding.mark}</strong> {html.escape(finding.text)}"
            + (f"<br>→ {html.escape(finding.remedy)}" if finding.remedy else "")
            + "</li>"
            for finding in self.findings
        )
        return f"<ul>{lines}</ul><p>{html.escape(self._verdict())}</p>"


def examine(network: ImplicitNetwork, d: Tensor, y: Tensor | None = None, loss: Loss | None = None) -> Report:
    """Measure an implicit network, and say in words what was found and what to do.

    Whether its own solver brings the samples to rest, and whether there is a fixed point at all; norm and spectral radius of
    dT/du there; whether R hears its input; which weights JFB's gradient reaches; the cosine of three rules with the exact gradient;
    and the criterion, whether JFB descends for every loss. All but the first on a copy in float64 and eval mode. The network and
    the random numbers of the caller stay as they are.

    Args:
        network: what is examined.
        d: some of its data, `(batch, …)`; eight samples are plenty.
        y: their targets; without them the rules are compared on a random combination of the outputs.
        loss: `loss(prediction, y)`; by default cross-entropy for whole numbers in y, else the mean squared error.

    Raises:
        TypeError, ValueError: network is no ImplicitNetwork, d no batch, or the parts do not fit together.
        FloatingPointError: a parameter or a buffer is not finite.

    Example:
        >>> from torch import nn
        >>> class Cell(nn.Linear):
        ...     def forward(self, u, q):
        ...         return torch.tanh(0.5 * super().forward(u) + q)
        >>> network = ImplicitNetwork(nn.Linear(4, 8), Cell(8, 8), nn.Linear(8, 2))
        >>> examine(network, torch.ones(4, 4)).to_mend
        ()
    """
    if not isinstance(network, ImplicitNetwork):
        raise TypeError(f"network must be an ImplicitNetwork, got {type(network).__name__}")
    if not isinstance(d, Tensor) or not d.ndim or not len(d):
        got = f"shape {tuple(d.shape)}" if isinstance(d, Tensor) else type(d).__name__
        raise ValueError(f"d must be a tensor (batch, …) with at least one sample, got {got}")
    check_finite(network)
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad(), buffers_kept(network):
        torch.manual_seed(0)
        measured: dict[str, float] = {}
        findings = [*_as_it_is(network, d, measured)]
        quiet = copy.deepcopy(network).double().eval()
        quiet.on_unconverged = "ignore"
        findings += _Equilibrium(quiet, d.double() if d.is_floating_point() else d, y, loss, measured).findings()
    return Report(tuple(findings), measured)


def _as_it_is(network: ImplicitNetwork, d: Tensor, measured: dict[str, float]) -> Iterator[Finding]:
    """In its own precision and mode, by its own solver."""
    weights = {id(p): p.numel() for p in network.parameters()}
    dropout = [m for m in _modules(network.R) if isinstance(m, nn.modules.dropout._DropoutNd) and m.p]
    if dropout:
        yield Finding(
            "MEND", "Dropout in R: every step has another mask, so there is no fixed point.", "Move it to Q or S."
        )
    try:
        with network.using(on_unconverged="ignore", mode="eval"):
            solution = network.solve(d)
    except FloatingPointError:
        yield Finding("MEND", f"With its own solver, {network.solver}, the iteration runs away.", _CONTRACT)
        return
    rested, size = int(solution.converged.sum()), sum(weights.values())
    measured |= {"weights": size, "at_rest": rested / len(d)}
    unknowns = solution.u.numel() // len(d)
    parts = f"{size:,} weights, a state of {unknowns:,} numbers a sample."
    if rested == len(d):
        yield Finding(
            "ok", f"{parts} Its own solver brings all {len(d)} samples to rest, in {_range(solution.steps)} steps."
        )
        return
    yield Finding(
        "MEND",
        f"{parts} Its own solver brings {rested} of {len(d)} samples to rest; the largest residual is "
        f"{_relative(solution):.1g} of the state's length.",
        "See below whether there is a fixed point; if so, raise max_steps, or try Anderson().",
    )


_CONTRACT = (
    "Make R gentler: normalisation.operator_norm on its layers, a factor below 1 in front, "
    "or a part of the old state in the new one."
)


class _Equilibrium:
    """A network in float64 and eval mode where it is at rest, and what is found there."""

    def __init__(
        self, network: ImplicitNetwork, d: Tensor, y: Tensor | None, loss: Loss | None, measured: dict
    ) -> None:
        self.network, self.d, self.measured = network, d, measured
        self.u, self.rests = torch.empty(0), False  # until `_rest` has found it
        with torch.no_grad():
            self.coupled = _couples(network.operator(d))
        self.y, self.loss = self._loss(y, loss)

    def findings(self) -> Iterator[Finding]:
        yield from self._rest()
        if self.rests:
            yield from self._one_or_many()
            yield from self._size()
        yield from self._hears()
        if self.rests:
            yield from self._rules()
            yield from self._criterion()

    def _loss(self, y: Tensor | None, loss: Loss | None) -> tuple[Tensor, Loss]:
        if y is None:
            with torch.no_grad(), self.network.using(solver=FixedPointIteration(max_steps=1)):
                made = self.network(self.d)
            if not isinstance(made, Tensor):
                raise TypeError(
                    f"S must return one tensor where no loss is given, got {type(made).__name__}; give y and loss"
                )
            return torch.randn(made.shape, dtype=torch.float64, device=self.d.device), lambda out, y: (out * y).sum()
        if loss is None:
            loss = nn.functional.mse_loss if y.is_floating_point() else nn.functional.cross_entropy
        return (y.double() if y.is_floating_point() else y), loss

    def _rest(self) -> Iterator[Finding]:
        """Is there a fixed point, and how soon do two solvers find it?"""
        found = {}
        for name, solver in {
            "plain iteration": PLAIN,
            "Anderson": Anderson(TIGHT, PATIENCE, relative=True),
        }.items():
            try:
                with self.network.using(solver=solver):
                    found[name] = self.network.solve(self.d)
            except FloatingPointError:
                continue  # it ran away
        rested = {name: each for name, each in found.items() if bool(each.converged.all())}
        if not rested:
            yield Finding(
                "MEND",
                f"No fixed point was found: neither plain iteration nor Anderson comes to rest in {PATIENCE:,} steps (float64, eval mode).",
                _CONTRACT,
            )
            return
        self.u, self.rests = next(iter(rested.values())).u, True
        steps = {
            name: int((each.residuals > 1e-6 * _length(each)).any(dim=1).sum()) + 1 for name, each in rested.items()
        }
        self.measured |= {f"steps_{name.split()[0]}": count for name, count in steps.items()}
        said = ", ".join(f"{name} in {count}" for name, count in steps.items())
        missing = {"plain iteration", "Anderson"} - set(rested)
        more = f" {missing.pop().capitalize()} does not come to rest." if missing else ""
        plain, faster = steps.get("plain iteration"), steps.get("Anderson")
        advice = "Try Anderson() as the solver." if faster and (plain is None or 2 * faster < plain) else ""
        yield Finding("note" if advice else "ok", f"At rest (to a millionth of the state): {said} steps.{more}", advice)

    def _one_or_many(self) -> Iterator[Finding]:
        """Another start, as far from zero as the equilibrium: does it end at the same place?"""
        start = torch.randn_like(self.u) * self.u.square().mean().sqrt().clamp_min(1e-3)
        try:
            with self.network.using(solver=PLAIN):
                other = self.network.solve(self.d, start)
        except FloatingPointError:
            return
        apart = (_rows(other.u - self.u).norm(dim=1) / _rows(self.u).norm(dim=1).clamp_min(1e-300)).max().item()
        if bool(other.converged.all()) and apart > 1e-3:
            yield Finding(
                "note",
                "A random start ends at another fixed point: the start decides.",
                "Start from zero, always, or be careful with warm starts.",
            )

    def _size(self) -> Iterator[Finding]:
        """Norm and spectral radius."""
        norms, radii = [], []
        tol = 1e-3 if self.u[0].numel() > DENSE else 1e-6
        try:
            for T, u in self._one_by_one():
                norms.append(contraction_factor(T, u, tol=tol))
                radii.append(spectral_radius(T, u, tol=max(tol, 1e-4)))
        except (TypeError, RuntimeError, ArithmeticError) as error:
            yield Finding("note", f"Norm and radius were not measured: {error}")
            return
        norm, radius = max(norms), max(radii)
        self.measured |= {"norm": norm, "radius": radius}
        said = f"‖J‖ is {norm:.3g} at most, ρ {radius:.3g}, at {len(norms)} {'batch' if self.coupled else 'samples'}:"
        if norm < 1:
            yield Finding("ok", f"{said} near its fixed point the network contracts.")
        elif radius < 1:
            yield Finding(
                "ok",
                f"{said} no contraction by its norm, as most trained networks of the book; near the fixed point plain iteration arrives.",
            )
        else:
            yield Finding("MEND", f"{said} plain iteration does not stay at this fixed point.", _CONTRACT)
        if 0 < radius < 1:
            terms = max(1, math.ceil(math.log(0.1) / math.log(radius)))
            yield Finding("note", f"By ρ, about {terms} terms of the Neumann series leave out a tenth of the gradient.")

    def _hears(self) -> Iterator[Finding]:
        """Does the input enter R?"""
        T = self.network.operator(self.d)
        parts = [q.detach().requires_grad_() for q in ((T.q,) if isinstance(T.q, Tensor) else T.q)]
        T.q = parts[0] if isinstance(T.q, Tensor) else tuple(parts)
        image = T(self.u if self.rests else T.zeros())
        into = torch.autograd.grad(image.sum(), parts, allow_unused=True) if image.requires_grad else [None]
        if not any(part is not None and bool(part.any()) for part in into):
            yield Finding(
                "MEND",
                "R does not hear its input: q changes nothing of R(u, q), so the fixed point cannot depend on the data.",
                "Let q enter every step, R(u, q) = f(u) + q for example.",
            )

    def _rules(self) -> Iterator[Finding]:
        """Which weights JFB reaches, and cosines with the exact gradient."""
        exact = ImplicitDifferentiation(tol=1e-8, per_sample=not self.coupled)
        rested = lambda T, u0: Solution(  # noqa: E731
            self.u,
            torch.zeros(1, len(self.u), dtype=self.u.dtype, device=self.u.device),
            torch.ones(len(self.u), dtype=torch.int64),
            torch.ones(len(self.u), dtype=torch.bool),
        )
        try:
            with self.network.using(solver=rested):
                silent = self._silent(exact)
                table = bench.compare(self.network, self.d, self.y, self.loss, RULES, reference=exact)
        except (ValueError, RuntimeError, ArithmeticError) as error:
            yield Finding("note", f"The rules were not compared: {str(error).splitlines()[0]}")
            return
        if silent:
            few = ", ".join(silent[:3]) + (", …" if len(silent) > 3 else "")
            yield Finding(
                "MEND",
                f"With JFB no gradient reaches {few}: one step back from the answer does not come to these weights.",
                "Let R use the part that it has just made, or take two terms, NeumannSeries(2), or UnrolledPhantom().",
            )
        cosines = {row.rule: row.cosine for row in table.rows}
        names = {JFB(): "jfb", RULES[1]: "neumann", RULES[2]: "phantom"}
        self.measured |= {f"cosine_{names[rule]}": cosine for rule, cosine in cosines.items()}
        said = "; ".join(f"{bench.name(rule)}: {cosine:.2f}" for rule, cosine in cosines.items())
        jfb = cosines[JFB()]
        if jfb <= 0:
            yield Finding(
                "MEND", f"Cosine with the exact gradient: {said}: here JFB climbs.", "Record more steps, or go exact."
            )
        else:
            advice = "More terms are nearer to the gradient here; whether they train better, try." if jfb < 0.5 else ""
            yield Finding("note" if advice else "ok", f"Cosine with the exact gradient: {said}.", advice)

    def _silent(self, exact: Callable) -> list[str]:
        """The weights of Q and R that the exact gradient reaches and JFB's does not."""
        named = [(n, p) for n, p in self.network.named_parameters() if p.requires_grad and not n.startswith("S.")]
        reached = []
        for rule in (JFB(), exact):
            with self.network.using(gradient=rule):
                value = self.loss(self.network(self.d), self.y)
            parts = torch.autograd.grad(value, [p for _, p in named], allow_unused=True)
            reached.append([part is not None and bool(part.any()) for part in parts])
        return [name for (name, _), by_jfb, by_exact in zip(named, *reached, strict=True) if by_exact and not by_jfb]

    def _criterion(self) -> Iterator[Finding]:
        """Does JFB descend for every loss of a sample?"""
        weights = sum(p.numel() for p in self.network.parameters())
        with torch.no_grad():
            made = self.network.S(self.network.operator(self.d).unpack(self.u))
        outputs = made[0].numel() if isinstance(made, Tensor) else 0
        if outputs * weights > NUMBERS:
            yield Finding("note", f"The criterion was left out: {outputs:,} outputs × {weights:,} weights are many.")
            return
        try:
            found = [criterion(self.network, self.d[i : i + 1]) for i in range(min(AT_ONE, len(self.d)))]
        except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
            yield Finding("note", f"The criterion was not computed: {str(error).splitlines()[0]}")
            return
        least = min(each.smallest for each in found)
        self.measured["criterion"] = least
        good = sum(each.holds for each in found)
        at = f"The criterion holds at {good} of {len(found)} samples (at its least, {least:.2g})"
        if good == len(found):
            yield Finding("ok", f"{at}: JFB descends for every loss of each.")
        else:
            yield Finding("note", f"{at}: some loss makes JFB climb, which need not be yours.")

    def _one_by_one(self) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor]]:
        """T and its fixed point, sample by sample if they do not know of each other."""
        if self.coupled:
            yield self.network.operator(self.d), self.u
            return
        for i in range(min(AT_ONE, len(self.d))):
            yield self.network.operator(self.d[i : i + 1]), self.u[i : i + 1]


def _modules(part: object) -> Sequence[nn.Module]:
    return list(part.modules()) if isinstance(part, nn.Module) else []


def _couples(T: LatentOperator) -> bool:
    """Whether one sample's step depends on another's state."""
    u = T.zeros()
    if len(u) < 2:
        return False
    moved = u.clone()
    moved[1:] += torch.randn_like(u[1:])
    before, after = T(u)[0], T(moved)[0]
    return not torch.allclose(before, after, rtol=1e-9, atol=1e-12)


def _rows(u: Tensor) -> Tensor:
    return u.reshape(len(u), -1)


def _length(solution: Solution) -> Tensor:
    return _rows(solution.u).norm(dim=1).clamp_min(1e-300)


def _relative(solution: Solution) -> float:
    """The largest residual, relative to the state's length."""
    return (solution.residual.double() / _length(solution).double()).max().item()


def _range(steps: Tensor) -> str:
    low, high = int(steps.min()), int(steps.max())
    return f"{high}" if low == high else f"{low} to {high}"
