"""The drawings of the chapters."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jfb_tutorial import toy
from jfb_tutorial.pages import diagrams, figures


@pytest.mark.parametrize("name", diagrams.__all__)
def test_a_drawing_fits_a_page_and_draws(name):
    with plt.rc_context(figures.style()):
        figure = getattr(diagrams, name)()
        assert figure.get_figwidth() <= 6.4
        assert figures.show(figure, alt="a drawing of the book, drawn").png


def test_the_ends_of_the_branches_are_the_folds():
    with plt.rc_context(figures.style()):
        figure = diagrams.fold()
        middle = np.asarray(figure.axes[0].lines[1].get_xdata(), dtype=float)
        assert abs(middle[-1] - toy.RADIUS) < 1e-12
        plt.close(figure)


def test_the_curves_of_the_lemma_stay_in_its_square():
    with plt.rc_context(figures.style()):
        figure = diagrams.square_that_keeps()
        for line in figure.axes[0].lines[:3]:
            x, y = (np.asarray(values, dtype=float) for values in line.get_data())
            assert np.abs(y).max() < toy.ALPHA
            assert (np.abs(np.diff(y)) <= 0.5 * np.diff(x)).all()
        plt.close(figure)
