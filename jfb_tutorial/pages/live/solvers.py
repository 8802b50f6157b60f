"""The three solvers on a map of the reader's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from ...solvers import Anderson, Broyden, FixedPointIteration, Solution
from ...theory import contraction_factor
from .sliders import Live, import_widgets

__all__ = ["Solvers"]


class Solvers(Live):
    """Residuals of plain iteration, Anderson acceleration and Broyden's method on T.

    Args:
        T: maps `(batch, *latent)` to the same.
        u0: `(batch, *latent)`, where they start.
        alt: see `Live`.
        max_steps: the largest number of evaluations of T.
    """

    def __init__(self, T: Callable[[Tensor], Tensor], u0: Tensor, *, alt: str, max_steps: int = 100) -> None:
        widgets = import_widgets()
        self.T, self.u0, self.max_steps = T, u0, max_steps
        super().__init__(
            alt,
            damping=widgets.FloatSlider(1.0, min=0.05, max=1.0, step=0.05, description="step λ"),
            memory=widgets.IntSlider(5, min=1, max=10, description="memory"),
            digits=widgets.IntSlider(8, min=1, max=12, description="tolerance 10⁻ⁿ, n ="),
        )

    def draw(self, **values: Any) -> tuple[Figure, str]:
        """The residuals of the worst sample, by evaluation."""
        damping, common = values["damping"], {"tol": 10.0 ** -values["digits"], "max_steps": self.max_steps}

        def T(u: Tensor) -> Tensor:
            # the same fixed points, and another slope: 1 − λ + λμ for each eigenvalue μ of J
            return self.T(u) if damping == 1 else (1 - damping) * u + damping * self.T(u)

        solvers = {
            "plain iteration": FixedPointIteration(**common),
            "Anderson": Anderson(memory=values["memory"], **common),
            "Broyden": Broyden(memory=values["memory"], **common),
        }
        # first, since a map that is refused is to leave no empty figure
        found = {name: self._solve(solver, T) for name, solver in solvers.items()}
        figure, ax = plt.subplots()
        said, best = [], None
        for name, solution in found.items():
            if isinstance(solution, str):
                said.append(f"{name}: {solution}")
                continue
            worst = solution.residuals.amax(1)
            ax.semilogy(range(1, len(worst) + 1), worst, label=name)
            converged = bool(solution.converged.all())
            best = solution.u if converged and best is None else best
            many = int(solution.steps.max())
            said.append(f"{name}: {many} evaluations" if converged else f"{name}: not within {many} evaluations")
        ax.set(xlabel="evaluations of T", ylabel="‖T(u) − u‖, worst sample")
        if ax.lines:
            ax.legend()
        words = ", ".join(said) + "."
        if best is not None:
            words += f" At the fixed point ‖∂T/∂u‖₂ = {contraction_factor(T, best):.3f}."
        return figure, words

    def _solve(self, solver: FixedPointIteration, T: Callable[[Tensor], Tensor]) -> Solution | str:
        try:
            return solver(T, self.u0)
        except FloatingPointError:
            return "left the finite numbers"
