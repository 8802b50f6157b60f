"""What the chapters' plots and tables are made with: bands, intervals, records as arrays, windows of photographs."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import BOOK

from jfb_tutorial.pages.plots import (
    band,
    coming_to_rest,
    early_directions,
    gallery,
    heat_map,
    intervals,
    intervals_in_words,
    passes,
    plain_log,
    regions,
    roofline,
)
from jfb_tutorial.pages.recorded import Recorded, interval, spread
from jfb_tutorial.pages.tables import table_of
from jfb_tutorial.pages.traffic import Traffic
from jfb_tutorial.pages.windows import NAMES, animals, windows
from jfb_tutorial.training.experiments import read_suites

SUITES = read_suites(BOOK / "runs.py")


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_a_band_goes_from_the_least_to_the_largest_of_several_runs(ax):
    line = band(ax, range(1, 3), [[1.0, 2.0], [3.0, 6.0]], label="x")
    np.testing.assert_allclose(np.asarray(line.get_ydata()), [2, 4])
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
    row = digits.summary("jfb", name="JFB")
    assert row["loss"] == digits.end("jfb", "loss")
    assert row["test_loss"] == digits.result("jfb", "test_loss").mean()
    assert (row["name"], row["seeds"]) == ("JFB", 5)
    columns = {"rule": "{name}", "steps": "{steps_mean:.1f}", "time": "{time}"}
    made = digits.table({"jfb": "JFB"}, columns, caption="One rule of many.", time={"jfb": 2})
    assert made.rows == (("JFB", f"{digits.end('jfb', 'steps_mean'):.1f}", "2"),)
    assert row["spread"] == spread(100 * digits.result("jfb"))
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


def test_the_animals_are_small_pictures():
    pictures = animals(BOOK / "images" / "windows")
    assert pictures.shape == (6, 3, 32, 32)
    assert pictures.dtype == torch.uint8
    assert len(pictures.flatten(1).unique(dim=0)) == 6
    red, green, blue = pictures[5].double().mean(dim=(1, 2))
    assert red > max(green, blue), "the parrot is red"


def test_a_table_of_rows_with_the_same_keys():
    rows: list[dict] = [{"lr": 0.125, "epoch": 1}, {"lr": 2, "epoch": 10}]
    made = table_of(rows, {"epoch": "{epoch}", "rate": "{lr:.2f}"}, caption="Rates of two epochs.")
    assert made.head == ("epoch", "rate")
    assert made.rows == (("1", "0.12"), ("10", "2.00"))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gallery_leaves_the_places_that_are_left_over_empty(channels):
    fig = gallery(torch.zeros(3, channels, 4, 4, dtype=torch.uint8), [7, "a", "b"], columns=2, height=2)
    assert [ax.get_title() for ax in fig.axes] == ["7", "a", "b", ""]
    assert [len(ax.images) for ax in fig.axes] == [1, 1, 1, 0]
    plt.close(fig)


def test_a_roof_is_the_lesser_of_two_limits():
    fig = roofline({"core": (100.0, 10.0)}, {"Q": (20.0, 50.0)}, {"Q": (8, -5)})
    (ax,) = fig.axes
    roof, dot = ax.lines
    x, y = np.asarray(roof.get_xdata()), np.asarray(roof.get_ydata())
    np.testing.assert_allclose(y, np.minimum(100, 10 * x))
    assert (dot.get_xdata(), dot.get_ydata()) == ([20], [50])
    plt.close(fig)


def test_traffic_counts_what_is_read_and_written_and_no_views():
    x, kernel = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 1, 1)
    with Traffic() as moved:
        y = x + 1
        y.view(16)
    assert (moved.calls, moved.bytes, moved.convolutions) == (1, 2 * 64, 0)
    with Traffic() as moved:
        torch.nn.functional.conv2d(x, kernel)
    assert moved.convolutions == moved.bytes == 2 * 64 + 4


def test_early_directions_are_drawn_beside_the_cosine_that_bounds_their_error():
    fig = early_directions([0.8, 0.9, 0.95], [0.5, 0.2, 0.1], final=0.97)
    cosines, errors, bound = fig.axes[0].get_lines()
    assert np.asarray(cosines.get_ydata()).tolist() == [0.8, 0.9, 0.95]
    assert np.asarray(errors.get_ydata()).tolist() == [0.5, 0.2, 0.1]
    assert set(np.asarray(bound.get_ydata()).tolist()) == {0.97}
    plt.close(fig)


def test_regions_are_where_the_score_is_positive(ax):
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    one = regions(ax, lambda places: places[:, 0] - places[:, 1], points, torch.tensor([0, 1]), margin=1.0, cells=5)
    x, y = torch.linspace(-1, 2, 5), torch.linspace(-1, 3, 5)
    assert torch.equal(one, x[None, :] > y[:, None])
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0.0, 0.0]], [[1.0, 2.0]]]


def test_the_share_that_has_its_final_colour_comes_to_one():
    points, labels = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1])
    fig, settled = coming_to_rest(lambda places, steps: places[:, 0] - 1 / steps, points, labels, steps=(1, 2, 4, 500))
    assert settled == sorted(settled)
    assert settled[0] < settled[-1] == 1
    assert [ax.get_title() for ax in fig.axes] == ["1 step", "2 steps", "4 steps", "at rest"]
    plt.close(fig)


def test_a_map_writes_each_number_readably(ax):
    heat_map(ax, [[0.0, 1.0], [0.5, 0.25]], ("a", "b"), (1, 2), low=0, high=1, form="{:.1f}")
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in ax.texts}
    assert written == {
        (0, 0): ("0.0", "white"),
        (1, 0): ("1.0", "black"),
        (0, 1): ("0.5", "white"),
        (1, 1): ("0.2", "white"),
    }
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2"]


def test_bars_of_passes_stand_one_behind_the_other(ax):
    passes(ax, {"first": (2.0, 1.0), "second": (3.0, 4.0)})
    forward, backward = ax.containers
    # from below upwards, so that the first name is on top
    assert [bar.get_width() for bar in forward] == [3.0, 2.0]
    assert [(bar.get_x(), bar.get_width()) for bar in backward] == [(3.0, 4.0), (2.0, 1.0)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["second", "first"]
