"""What chapter 15 shows of its record, `book/timings/peers.json`, and its two series of random draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from . import odes
from .recorded import spread

__all__ = ["PUBLISHED", "Draws", "PathSpectrum", "Peers", "path_spectrum", "ring_by_factors", "smallest_rate"]

Row = Mapping[str, Any]

PUBLISHED = {
    "JFB": ("JFB, chapter 8's", "99.4"),
    "explicit twin": ("its explicit twin", "99.4"),
    "neural ODE": ("neural ODE", "96.4"),
    "augmented neural ODE": ("augmented neural ODE", "98.2"),
    "monotone, exact": ("monotone, exact", "99.2"),
    "monotone, JFB": ("monotone, JFB", "–"),
    "monotone, JFB, Peaceman–Rachford": ("monotone, JFB of P.–R.", "–"),
    "monotone, large W, exact": ("monotone, large W, exact", "–"),
    "monotone, large W, JFB, Peaceman–Rachford": ("the same, JFB of P.–R.", "–"),
}
"""The systems of the record, in the order of the table: how they are called there, and Table 1 of the JFB paper, in percent."""

STEPS = {
    "plain": "plain",
    "forward-backward": "forward–backward",
    "peaceman-rachford": "Peaceman–Rachford",
}


@dataclass(frozen=True)
class Peers:
    """The record, as sentences and tables of the chapter have it.

    Args:
        measured: the `result` of `book/timings/peers.json`.
    """

    measured: Mapping[str, Any]

    # random layers

    @property
    def drawn(self) -> int:
        """Random layers with relu and one sample."""
        return sum(row["draws"] for row in self._draws(0.0, 1))

    def climbs(self, step: str, *, slope: float = 0.0, samples: int = 1) -> int:
        """In how many random layers −p of a step, "plain" or "peaceman-rachford", climbs."""
        return sum(row[step] for row in self._draws(slope, samples))

    def _draws(self, slope: float, samples: int) -> list[Row]:
        return [row for row in self.measured["draws"] if (row["slope"], row["samples"]) == (slope, samples)]

    # gradients of the ODEs

    def adjoint(self, system: str, when: str, tol: float, way: str = "adjoint") -> Row:
        """What was found with a tolerance."""
        return next(each for each in self._gradients(system, when)["rows"] if (each["tol"], each["way"]) == (tol, way))

    def _gradients(self, system: str, when: str) -> Row:
        (row,) = (row for row in self.measured["adjoint"] if (row["system"], row["when"]) == (system, when))
        return row

    def adjoint_rows(self, system: str, when: str) -> list[list[str]]:
        """For each tolerance, relative errors in percent and a cosine."""
        tolerances = dict.fromkeys(each["tol"] for each in self._gradients(system, when)["rows"])
        lines = []
        for tol in tolerances:
            back, by_adjoint = (self.adjoint(system, when, tol, way) for way in ("backpropagation", "adjoint"))
            cells = [f"{100 * by_adjoint[key]:.1f} %" for key in ("off", "computed_off")]
            cosine = f"{by_adjoint['computed_cosine']:.4f}"
            lines.append([f"{tol:g}", *cells, cosine, f"{100 * back['off']:.1f} %"])
        return lines

    def adjoint_values(self) -> dict[str, str]:
        """Numbers of the sentences about the trained neural ODE."""
        row = self._gradients("neural ODE", "after")
        usual, fine = (self.adjoint("neural ODE", "after", tol) for tol in (1e-3, 1e-5))
        return {
            "adjoint_off": f"{100 * usual['computed_off']:.1f}",
            "adjoint_cosine": f"{usual['computed_cosine']:.3f}",
            "adjoint_angle": f"{math.degrees(math.acos(usual['computed_cosine'])):.1f}",
            "adjoint_fine": f"{100 * fine['computed_off']:.1f}",
            "adjoint_ode": f"{100 * usual['off']:.1f}",
            "direct_ode": f"{100 * self.adjoint('neural ODE', 'after', 1e-3, 'backpropagation')['off']:.1f}",
            "adjoint_rough": f"{self.adjoint('augmented neural ODE', 'after', 1e-1)['computed_cosine']:.2f}",
            "adjoint_bytes": f"{self.cost('neural ODE, adjoint')['bytes'] / 1e6:.1f}",
            "direct_bytes": f"{self.cost('neural ODE')['bytes'] / 1e6:.0f}",
            "adjoint_steps": str(row["steps"]),
            "adjoint_reference": f"{100 * row['reference_off']:.2g}",
        }

    # accuracies and costs

    def runs(self, system: str) -> list[Row]:
        """The runs of a system, by seed."""
        return sorted((row for row in self.measured["runs"] if row["system"] == system), key=lambda row: row["seed"])

    def cost(self, name: str) -> Row:
        """One update: seconds, kept bytes."""
        return next(row for row in self.measured["costs"] if row["name"] == name)

    def run_rows(self) -> list[list[str]]:
        """A line of the table for each system that has been trained."""
        lines = []
        for system, (name, published) in PUBLISHED.items():
            found = self.runs(system)
            if not found:
                continue
            accuracy = spread((100 * row["test_accuracy"] for row in found), 1)
            kept = self.cost(system)["bytes"] / 1e6
            seconds, count = (np.mean([row[key] for row in found]) for key in ("seconds", "evaluations"))
            mark = "" if len(found) > 1 else " *"
            first = [name, f"{found[0]['parameters']:,}", accuracy + mark, published]
            lines.append([*first, f"{seconds:.0f}", f"{count:.0f}", f"{kept:.0f}"])
        return lines

    def run_values(self) -> dict[str, str]:
        """Numbers of the sentences about costs and what was not trained."""
        trial = next(row for row in self.measured["choose"] if row["system"] == "neural ODE, adjoint")
        direct = next(
            row for row in self.measured["choose"] if (row["system"], row["rate"]) == ("neural ODE", trial["rate"])
        )
        others = [
            100 * row["test_accuracy"]
            for system in ("neural ODE", "augmented neural ODE", "monotone, exact", "monotone, JFB")
            for row in self.runs(system)
        ]
        time = {system: np.mean([row["seconds"] for row in self.runs(system)]) for system in ("JFB", "neural ODE")}
        return {
            "peers_jfb": spread((100 * row["test_accuracy"] for row in self.runs("JFB")), 1),
            "peers_twin": spread((100 * row["test_accuracy"] for row in self.runs("explicit twin")), 1),
            "peers_low": f"{min(others):.1f}",
            "peers_high": f"{max(others):.1f}",
            "peers_ode_time": f"{time['neural ODE'] / time['JFB']:.1f}",
            "cost_published": f"{self.cost('neural ODE, fold 1, filters 92')['seconds']:.1f}",
            "cost_folded": f"{self.cost('neural ODE')['seconds']:.2f}",
            "adjoint_updates": str(trial["updates"]),
            "adjoint_trial": f"{100 * trial['held_out']:.1f}",
            "direct_trial": f"{100 * direct['held_out']:.1f}",
        }

    # theory of the monotone networks

    def theory(self, system: str, when: str) -> list[Row]:
        """What was measured of a system, by seed."""
        found = (row for row in self.measured["theory"] if (row["system"], row["when"]) == (system, when))
        return sorted(found, key=lambda row: row["seed"])

    def theory_rows(self) -> list[list[str]]:
        """J of each step, and JFB's cosine, before and after training with the exact gradient."""
        lines = []
        for system, name in (("monotone, exact", "as published"), ("monotone, large W, exact", "large W")):
            for when, kind in ((when, kind) for when in ("before", "after") for kind in STEPS):
                rows = self.theory(system, when)
                steps = [step for row in rows for step in row["steps"] if step["kind"] == kind]
                steps = [step for step in steps if kind != "peaceman-rachford" or step["alpha"] == 1]
                label = f"{name}, {when}: {STEPS[kind]}"
                lines.append([label, *_measures(steps)])
        return lines

    def theory_values(self) -> dict[str, str]:
        """‖W‖ before training and after; what the plain step is in the published network then; the largest sure α in the other."""
        named = {}
        for key, system in (("w", "monotone, exact"), ("large", "monotone, large W, exact")):
            for when in ("before", "after"):
                sizes = [row["W"]["norm"] for row in self.theory(system, when)]
                named[f"{key}_{when}"] = f"{np.mean(sizes):.1f}"
        plain = [
            step for row in self.theory("monotone, exact", "after") for step in row["steps"] if step["kind"] == "plain"
        ]
        each = [at for step in plain for at in step["each"]]
        named["w_radius"] = f"{np.mean([at['radius'] for at in each]):.2f}"
        named["w_norm"] = f"{np.mean([at['norm'] for at in each]):.1f}"
        named["w_steps"] = str(max(step["evaluations"] for step in plain))
        (large,) = self.theory("monotone, large W, exact", "after")
        named["large_alpha"] = f"{large['largest_alpha']:.3f}"
        return named


def _measures(steps: Sequence[Row]) -> list[str]:
    """The means of what was measured where the step came to rest, as cells."""
    each = [at for step in steps for at in step.get("each", ())]
    if not each:
        return ["does not rest", *["–"] * 4]
    cells = [f"{np.mean([at[key] for at in each]):.2f}" for key in ("norm", "one_sided", "radius", "criterion")]
    return [*cells, f"{np.mean([step['cosine'] for step in steps]):.2f}"]


class Draws(NamedTuple):
    """Random layers of three units, one sample each."""

    outwards: float
    """The largest ⟨u, Wu⟩/‖u‖²."""
    rate: float
    """The smallest rate of descent by JFB of the plain step, ⟨ŵ, b⟩/‖ŵ‖² with the exact row ŵ and JFB's b."""


def smallest_rate(count: int, *, m: float = 1.0, slope: float = 0.0, seed: int = 0) -> Draws:
    """Of random layers T = φ(Wu + Ud + b), W = (1 − m) I − AᵀA + B − Bᵀ, with W, U and b trained.

    Args:
        count: layers.
        m: how far W stays from pushing outwards by 1; negative, W may push outwards by more.
        slope: of φ where a unit is off; 0 for relu.
        seed: of the layers.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = torch.float64
    A, B, g = (torch.randn(count, 3, k, generator=generator, dtype=draw) for k in (3, 3, 1))
    # a quarter of A, so that the bound is nearly met
    W = (1 - m) * torch.eye(3, dtype=draw) - A.mT @ A / 16 + 3 * (B - B.mT)
    D = torch.diag_embed(torch.where(torch.rand(count, 3, generator=generator) < 0.5, slope, 1.0).to(draw))
    exact, jfb = D @ torch.linalg.solve(torch.eye(3, dtype=draw) - W.mT @ D, g), D @ g
    size = exact.square().sum(dim=(1, 2))
    rates = ((exact * jfb).sum(dim=(1, 2)) / size)[size > 1e-12]
    return Draws(torch.linalg.eigvalsh((W + W.mT) / 2).max().item(), rates.min().item())


def ring_by_factors() -> float:
    """⟨gradient, −p⟩ of chapter 2's ring, W = B − Bᵀ, with A = 0, B and the bias trained: u = (1, 1), and w = (2, 0) at the exact rule."""
    u, w = torch.ones(2, dtype=torch.float64), torch.tensor([2.0, 0.0], dtype=torch.float64)
    W = torch.tensor([[0.0, -3.0], [3.0, 0.0]], dtype=torch.float64)
    g = w - w @ W
    exact, jfb = (torch.outer(row, u) - torch.outer(u, row) for row in (w, g))
    return ((exact * jfb).sum() + w @ g).item()


class PathSpectrum(NamedTuple):
    """J of a neural ODE on a grid of times, at its path."""

    norm: float
    radius: float
    """From the blocks by which each time hears of itself, since J is block triangular."""
    early: float
    """The largest entry by which a time hears of a later one."""
    steps: int
    """Plain steps until not a bit changes, 100 at most."""


class _Implicit(odes.Picard):
    """Every time hears of the speed at itself too, that is, Euler's implicit method."""

    def forward(self, u: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        times = torch.arange(1, self.steps + 1, dtype=u.dtype) / self.steps
        speeds = torch.stack([self.field(t, u[:, k + 1]) for k, t in enumerate(times)], dim=1)
        return q + torch.cat([torch.zeros_like(q[:, :1]), speeds.cumsum(dim=1) / self.steps], dim=1)


def path_spectrum(seed: int, *, steps: int = 20, implicit: bool = False) -> PathSpectrum:
    """Of a random field in the plane, float64.

    Args:
        seed: of the field and of the start.
        steps: of the grid.
        implicit: by Euler's implicit method in place of the explicit one.
    """
    torch.manual_seed(seed)
    field = odes.Perceptron(2, strength=3.0).double()
    field.two.weight.data *= 20  # with which all norms are above 1
    R = (_Implicit if implicit else odes.Picard)(field, steps)
    q = torch.randn(1, 1, 2, dtype=torch.float64).expand(-1, steps + 1, -1)
    u, count = q, 0
    with torch.no_grad():
        while count < 100 and (new := R(u, q)).ne(u).any():
            u, count = new, count + 1
    flat = torch.autograd.functional.jacobian(lambda x: R(x.reshape(q.shape), q).flatten(), u.flatten())
    J = flat.reshape(steps + 1, 2, steps + 1, 2)
    own = J.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    later = torch.ones(steps + 1, steps + 1).triu(1).bool()
    return PathSpectrum(
        norm=torch.linalg.matrix_norm(flat, 2).item(),
        radius=torch.linalg.eigvals(own).abs().max().item(),
        early=J.transpose(1, 2)[later].abs().max().item(),
        steps=count,
    )
