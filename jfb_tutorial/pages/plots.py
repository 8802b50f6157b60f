"""What several pictures of the chapters share."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from .figures import BLUE, GREEN
from .instances import sharp_bound

__all__ = ["descent_plane"]


def descent_plane(ax: Axes, largest: float, label: str) -> None:
    """The two curves under which γ must stay, against κ from 1 to `largest`; `label` names that of Theorem 3.1, 1/κ."""
    kappa = np.logspace(0, np.log10(largest), 300)
    ax.semilogx(kappa, 1 / kappa, color=BLUE, linestyle="-", label=label)
    ax.semilogx(kappa, sharp_bound(kappa), color=GREEN, linestyle="--", label=r"sharp: $2\sqrt{\kappa}/(1+\kappa)$")
    ax.fill_between(kappa, 0, 1 / kappa, color=BLUE, alpha=0.25, linewidth=0)
    ax.fill_between(kappa, 1 / kappa, sharp_bound(kappa), color=GREEN, alpha=0.18, linewidth=0)
    ax.set(xlim=(1, largest))
