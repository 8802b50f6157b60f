"""Theorem 3.1 on a network and on samples of the reader's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...network import ImplicitNetwork
from ...theory import DescentCheck, descent_check
from ..figures import GREEN, GREY, VERMILION
from ..plots import descent_plane
from .sliders import Live, import_widgets

__all__ = ["Descent"]

LARGEST = 1e4
"""The largest κ in the picture; a larger one is drawn at its edge."""


class Descent(Live):
    """Where a sample stands among the conditions under which JFB descends, and whether it does.

    Args:
        network: a module R has its parameters multiplied by the slider's factor, in a copy.
        d: the samples, `(batch, …)`; y: their targets; loss: `loss(prediction, y)`, a scalar. The slider chooses one sample.
        alt: see `Live`.

    Attributes:
        found: what was measured, the latest last; earlier points stay in the picture.
    """

    def __init__(
        self, network: ImplicitNetwork, d: Tensor, y: Tensor, loss: Callable[..., Tensor], *, alt: str
    ) -> None:
        widgets = import_widgets()
        self.network, self.d, self.y, self.loss = network, d, y, loss
        self.found: list[DescentCheck] = []
        super().__init__(
            alt,
            sample=widgets.IntSlider(0, min=0, max=len(d) - 1, description="sample"),
            factor=widgets.FloatSlider(1.0, min=0.1, max=3.0, step=0.1, description="weights of R times"),
        )

    def draw(self, **values: Any) -> tuple[Figure, str]:
        """The plane of κ and γ, with the two conditions and the points."""
        network = deepcopy(self.network)
        if isinstance(network.R, torch.nn.Module):
            with torch.no_grad():
                for weight in network.R.parameters():
                    weight.mul_(values["factor"])
        which = slice(values["sample"], values["sample"] + 1)
        found = descent_check(network, self.d[which], self.y[which], self.loss)
        self.found.append(found)
        figure, ax = plt.subplots()
        descent_plane(ax, LARGEST, r"Theorem 3.1, at best: $1/\kappa$")
        for each in self.found:
            last = each is found
            ax.plot(
                min(each.kappa_T, LARGEST),
                each.gamma,
                marker="o" if each.inner_product < 0 else "X",
                color=(GREEN if each.inner_product < 0 else VERMILION) if last else GREY,
                markersize=11 if last else 6,
                alpha=1.0 if last else 0.6,
            )
        ax.set(xlabel="κ of the T block", ylabel="γ = ‖∂T/∂u‖ at u*", ylim=(0, max(1.1, 1.1 * found.gamma)))
        ax.legend(loc="upper right")
        return figure, _say(found)


def _say(found: DescentCheck) -> str:
    """What was found, in a sentence."""
    conditions = {
        (True, True): "Assumption 3.3 holds, and with it the sharper condition",
        (True, False): "Assumption 3.3 holds",
        (False, True): "Assumption 3.3 fails, the sharper condition holds",
        (False, False): "neither Assumption 3.3 nor the sharper condition holds",
    }[found.assumption_holds, found.sharp_holds]
    kappa = "infinite" if math.isinf(found.kappa_T) else f"{found.kappa_T:.4g}"
    outcome = "JFB descends" if found.inner_product < 0 else "JFB does not descend"
    return f"γ = {found.gamma:.3f}, κ of the T block = {kappa}: {conditions}. {outcome}: its cosine with the gradient is {found.cosine:.3f}."
