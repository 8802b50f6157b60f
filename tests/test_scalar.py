"""What the claims about y = d + y⁵ are tested against."""

import pytest

from jfb_tutorial import toy
from jfb_tutorial.pages import scalar


@pytest.mark.parametrize("d", [-0.5, 0.0, 0.3, 0.53])
def test_the_two_methods_find_the_same_fixed_point(d):
    fold = 5**-0.25
    found = scalar.fixed_points(d)
    assert len(found) == 3
    assert len(scalar.fixed_points(d, fold)) == 1
    assert scalar.bracketed(d, -fold, fold) == pytest.approx(scalar.fixed_points(d, fold)[0], abs=1e-12)
    for y in found:
        assert y == pytest.approx(d + y**5, abs=1e-12)


def test_beyond_the_fold_there_is_one_and_it_is_far_away():
    (only,) = scalar.fixed_points(0.6)
    assert only < -1


def test_no_chord_is_steeper_than_the_slope_at_the_end():
    assert 0.49 < scalar.steepest(toy.ALPHA) <= 0.5
    assert 4.9 < scalar.steepest(1.0) <= 5
