"""Every backward rule on a network of the reader's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom, tally
from ...network import ImplicitNetwork
from ..figures import BLUE, VERMILION
from .sliders import Live, import_widgets

__all__ = ["Rules"]

EXACT = ImplicitDifferentiation(tol=1e-8, on_failure="warn")


class Rules(Live):
    """The cosine of each rule's gradient with the exact one, and its length beside it.

    Args:
        network: of which the gradient by all parameters of Q and R is taken.
        d: the data, y: their targets, loss: `loss(prediction, y)`, a scalar.
        alt: see `Live`.
    """

    def __init__(self, network: ImplicitNetwork, d: Any, y: Any, loss: Callable[..., Tensor], *, alt: str) -> None:
        widgets = import_widgets()
        self.network, self.d, self.y, self.loss = network, d, y, loss
        parts = (network.Q, network.R)
        self.parameters = [p for part in parts if isinstance(part, torch.nn.Module) for p in part.parameters()]
        super().__init__(
            alt,
            terms=widgets.IntSlider(5, min=1, max=20, description="terms, steps k"),
            damping=widgets.FloatSlider(0.5, min=0.1, max=1.0, step=0.1, description="damping λ"),
            unrolled=widgets.IntSlider(10, min=1, max=50, description="unrolled steps"),
        )

    def draw(self, **values: Any) -> tuple[Figure, str]:
        """A pair of bars for each rule."""
        k, damping = values["terms"], values["damping"]
        rules: dict[str, Callable[..., Tensor]] = {
            "JFB": JFB(),
            f"Neumann, {k} terms": NeumannSeries(k, 1.0),
            f"phantom NPG({k}, {damping:g})": NeumannSeries(k, damping),
            f"phantom UPG({k}, {damping:g})": UnrolledPhantom(k, damping),
            f"unrolled, {values['unrolled']} steps": Unrolled(values["unrolled"]),
        }
        exact, products = self._gradient(EXACT)
        if not exact.norm() > 0:
            raise ValueError(
                "the exact gradient by the parameters of Q and R is 0, so that nothing has an angle with it"
            )
        cosines, lengths = [], []
        for rule in rules.values():
            gradient, _ = self._gradient(rule)
            cosines.append(torch.nn.functional.cosine_similarity(gradient, exact, 0).item())
            lengths.append((gradient.norm() / exact.norm()).item())
        figure, ax = plt.subplots(figsize=(4.8, 3.4))
        rows = torch.arange(len(rules))
        ax.barh(rows - 0.2, cosines, 0.36, color=BLUE, label="cosine")
        ax.barh(rows + 0.2, lengths, 0.36, color=VERMILION, label="length, exact = 1", hatch="//", alpha=0.8)
        ax.axvline(1, color="black", linewidth=0.8)
        ax.set_yticks(rows, list(rules))
        ax.invert_yaxis()
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
        said = ", ".join(f"{name} {cosine:.4f}" for name, cosine in zip(rules, cosines, strict=True))
        return figure, f"Cosines with the exact gradient, which took {products} products with J: {said}."

    def _gradient(self, rule: Callable[..., Tensor]) -> tuple[Tensor, int]:
        with self.network.using(gradient=rule, on_unconverged="raise"), tally() as count:
            parts = torch.autograd.grad(self.loss(self.network(self.d), self.y), self.parameters)
        return torch.cat([part.flatten() for part in parts]).double(), count.products
