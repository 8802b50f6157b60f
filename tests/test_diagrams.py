"""The drawings of the chapters."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jfb_tutorial import toy
from jfb_tutorial.pages import diagrams, figures


@pytest.mark.parametrize("name", diagrams.__all__)
def test_a_drawing_fits_a_page_and_draws(name):
    arguments = {"cobweb": (0.5,)}.get(name, ())
    with plt.rc_context(figures.style()):
        figure = getattr(diagrams, name)(*arguments)
        assert figure.get_figwidth() <= 6.4
        assert figures.show(figure, alt="a drawing of the book, drawn").png


def test_the_lens_of_the_cobweb_is_on_the_fixed_point():
    with plt.rc_context(figures.style()):
        figure = diagrams.cobweb(0.3)
        lens = figure.axes[0].child_axes[0]
        low, high = lens.get_xlim()
        assert low < toy.solve(0.3) < high
        plt.close(figure)


def test_the_ends_of_the_branches_are_the_folds():
    with plt.rc_context(figures.style()):
        figure = diagrams.fold()
        middle = np.asarray(figure.axes[0].lines[1].get_xdata(), dtype=float)
        assert abs(middle[-1] - toy.RADIUS) < 1e-12
        plt.close(figure)
