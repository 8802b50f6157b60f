"""What the chapters' plots and tables are made with: bands, intervals, records as arrays, windows of photographs."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import BOOK

from jfb_tutorial.pages.plots import band, intervals, intervals_in_words, plain_log
from jfb_tutorial.pages.recorded import Recorded, interval, spread
from jfb_tutorial.pages.windows import NAMES, windows
from jfb_tutorial.training.experiments import read_suites

SUITES = read_suites(BOOK / "runs.py")


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_a_band_goes_from_the_least_to_the_largest_of_several_runs(ax):
    line = band(ax, range(1, 3), [[1.0, 2.0], [3.0, 6.0]], label="x")
    np.testing.assert_allclose(line.get_ydata(), [2, 4])
    (area,) = ax.collections
    assert area.get_paths()[0].get_extents().intervaly.tolist() == [1, 6]
    band(ax, range(1, 3), [[1.0, 2.0]])
    assert len(ax.collections) == 1, "one run has no band"


def test_numbers_on_a_logarithmic_axis_are_written_out(ax):
    ax.plot([1, 2], [0.5, 3])
    plain_log(ax)
    assert ax.yaxis.get_minor_formatter()(2.0, 0) == "2"


def test_intervals_say_which_exclude_zero_without_colour(ax):
    found = {"inside": (0.1, 0.3), "outside": (0.5, 0.2)}
    intervals(ax, found, faint={"inside": (0.1, 0.6)})
    assert [text.get_text() for text in ax.get_yticklabels()] == list(found)
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert [mark.get_markerfacecolor() == mark.get_color() for mark in marks] == [False, True]
    assert intervals_in_words(found, 1) == "inside +0.1 ± 0.3; outside +0.5 ± 0.2"


def test_half_an_interval_is_that_of_students_t():
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2
    # 4.303 is the table's quantile for two degrees of freedom
    assert half == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    with pytest.raises(ValueError, match="two pairs"):
        interval([1.0])


def test_a_single_run_has_no_spread():
    assert spread([1.0, 2.0]) == "1.50 ± 0.71"
    assert spread([1.0], digits=1) == "1.0"


def test_records_as_arrays_and_what_is_missing(tmp_path):
    digits = Recorded(SUITES["digits"], BOOK / "records")
    assert digits.rows("jfb", "loss").shape == (5, digits["jfb"].recipe.epochs)
    assert digits.end("jfb", "loss") == digits.rows("jfb", "loss")[:, -1].mean()
    assert digits.result("jfb").shape == (5,)
    assert len(digits.runs("jfb", "exact")) == 10
    with pytest.raises(KeyError, match="no experiment"):
        digits.runs("jbf")
    with pytest.raises(FileNotFoundError, match="reproduce digits"):
        Recorded(SUITES["digits"], tmp_path).runs("jfb")
    assert Recorded(SUITES["digits"], tmp_path, partly=True).runs("jfb") == []


@pytest.mark.parametrize("name", NAMES)
def test_windows_are_small_pictures_and_the_same_every_time(name):
    cut = windows(name, 3, seed=2, side=128, columns=(0.0, 0.5))
    assert cut.shape == (3, 3, 32, 32)
    assert cut.dtype == torch.uint8
    assert torch.equal(cut, windows(name, 3, seed=2, side=128, columns=(0.0, 0.5)))
    assert cut.double().std() > 1
