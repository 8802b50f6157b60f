"""What chapter 14 draws, and how it sums up its record."""

import json

import numpy as np
import pytest
import torch
from conftest import BOOK

from jfb_tutorial.pages import paths
from jfb_tutorial.pages import problem_record as show

RUNS = [
    {"rule": "a", "curve": [{"update": 0, "seconds": 0.0, "psnr": 1.0}, {"update": 5, "seconds": 2.0, "psnr": 4.0}]},
    {"rule": "a", "curve": [{"update": 0, "seconds": 0.0, "psnr": 2.0}, {"update": 5, "seconds": 3.0, "psnr": 3.0}]},
]


def test_ends_and_middles():
    assert show.ends(RUNS, "psnr") == [3, 4]
    assert show.ends(RUNS, "psnr", update=0) == [1, 2]
    assert show.median([3, 1, 2]) == 2
    assert show.middle([2, 1], 1) == "1.0 / 2.0"


def test_curves_begin_when_training_has_taken_time():
    fig = show.against(RUNS, ["a"], "rule", "psnr", "PSNR", (0, 5), log=False)
    lines = fig.axes[0].lines
    assert [np.asarray(line.get_xdata()).tolist() for line in lines] == [[2.0], [3.0]]


def test_a_path_is_drawn_from_corner_to_corner():
    cells = paths.maps(3, seed=0)[1]
    best = paths.shortest(paths.entering(cells))
    fig = show.three(cells, best)
    for ax in fig.axes:
        x, y = map(np.asarray, ax.lines[0].get_data())
        assert (x[0], y[0]) == (0, 0)
        assert (x[-1], y[-1]) == (7, 7)
        assert len(x) == 15
    assert len(show.pair(cells[0], best[0], best[1], best[0] / 2, best[0]).axes) == 2


def test_strips_and_steps():
    assert len(show.strips({"one": torch.rand(3, 64), "two": torch.rand(3, 64)}, count=2).axes) == 4
    more = [{"rule": "a", "steps": [{"most": 10, "psnr": low}, {"most": 100, "psnr": 5.0}]} for low in (1.0, 2.0, 3.0)]
    line = show.through_steps(more, ["a"], 4.0, "a line").axes[0].lines[0]
    assert np.asarray(line.get_ydata()).tolist() == [2.0, 5.0]


@pytest.mark.parametrize("part", ["rates", "paths", "flatter", "jacobians", "strengths", "images", "patience"])
def test_the_record_is_whole(part):
    rows = json.loads((BOOK / "timings" / "problems.json").read_text())["result"][part]
    seeds = {row["seed"] for row in rows if "seed" in row}
    assert seeds in ({0, 1, 2}, set())
    assert rows
