"""y = d + y⁵ against SciPy, mpmath and itself."""

from typing import Any, cast

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from jfb_tutorial import toy

GRID = torch.linspace(-0.5, 0.5, 10_000, dtype=torch.float64)
FUNCTIONS = {
    "iterate": lambda d: toy.iterate(d, 3),
    "solve": toy.solve,
    "series": lambda d: toy.series(d, 5),
    "hypergeometric": toy.hypergeometric,
    "derivative": toy.derivative,
}


@pytest.fixture(scope="module")
def roots():
    def bracketed(d):
        return brentq(lambda y: d + y**5 - y, -toy.ALPHA, toy.ALPHA, xtol=1e-16, rtol=8.9e-16)

    return torch.tensor([bracketed(d) for d in GRID.tolist()], dtype=torch.float64)


def test_solve_against_brentq(roots):
    assert (toy.solve(GRID) - roots).abs().max() < 1e-14


def test_series_and_hypergeometric_against_brentq(roots):
    assert (toy.series(GRID, 150) - roots).abs().max() < 1e-14
    assert (toy.hypergeometric(GRID) - roots).abs().max() < 1e-14


@pytest.mark.parametrize("d", [0.1, -0.3, 0.5, 0.53])
def test_hypergeometric_against_mpmath(d):
    upper, lower = [mpmath.mpf(k) / 5 for k in (1, 2, 3, 4)], [mpmath.mpf(k) / 4 for k in (2, 3, 5)]
    exact = d * mpmath.hyper(upper, lower, mpmath.mpf(3125) * mpmath.mpf(d) ** 4 / 256)
    assert abs(float(exact) - toy.hypergeometric(d).item()) < 1e-14


def test_floats_are_not_rounded_to_float32_on_the_way_in():
    for value in (0.3, [0.3], np.array(0.3, dtype=">f8"), np.longdouble(0.3)):
        assert toy.solve(value).item() == toy.solve(torch.tensor(0.3, dtype=torch.float64)).item()


def test_series_has_the_integer_coefficients_of_the_paper():
    # (86) writes 1, 1, 10/2!, 210/3!; the next is C(20, 4)/17 = 285
    sums = [toy.series(1.0, terms).item() for terms in range(1, 6)]
    assert sums == pytest.approx([1, 2, 7, 42, 327], rel=1e-15)


def test_the_series_needs_many_terms_near_its_radius_and_diverges_beyond():
    assert abs(toy.series(0.5, 30) - toy.solve(0.5)) > 1e-8
    assert toy.series(0.56, 400) > 1e20
    assert torch.isfinite(toy.series(0.1, 2000))  # the coefficients alone would overflow
    assert toy.series(1e100, 1).item() == 1e100


def test_radius_is_where_the_fixed_points_merge():
    assert pytest.approx(4 / 5 * 5**-0.25, rel=1e-15) == toy.RADIUS
    just_inside, just_beyond = toy.RADIUS - 1e-6, toy.RADIUS + 1e-6

    def real_roots(d):
        roots = np.roots([1, 0, 0, 0, -1, d])
        return int(np.sum(np.abs(roots.imag) < 1e-9))

    assert (real_roots(just_inside), real_roots(just_beyond)) == (3, 1)


def test_iterate_has_the_start_in_row_zero_and_the_recursion_after_it():
    d = torch.tensor([[0.1, -0.2], [0.3, 0.5]], dtype=torch.float64)
    y = toy.iterate(d, 7, y0=0.25)
    assert y.shape == (8, 2, 2)
    assert torch.equal(y[0], torch.full((2, 2), 0.25, dtype=torch.float64))
    assert torch.equal(y[1:], d + y[:-1] ** 5)
    assert toy.iterate(0.3, 0).tolist() == [0.0]


def test_iterate_escapes_beyond_the_fold():
    assert toy.iterate(0.54, 23).abs().max() < 1 < toy.iterate(0.54, 24).abs().max()
    assert torch.isinf(toy.iterate(0.6, 20)[-1])


def test_derivative_against_autograd_and_differences():
    d = torch.linspace(-0.49, 0.49, 99, dtype=torch.float64, requires_grad=True)
    (through_iteration,) = torch.autograd.grad(toy.iterate(d, 80)[-1].sum(), d)
    assert (toy.derivative(d) - through_iteration).abs().max() < 1e-13
    h = 1e-5
    differences = (toy.solve(d + h) - toy.solve(d - h)) / (2 * h)
    assert (toy.derivative(d) - differences).abs().max() < 1e-7


@pytest.mark.parametrize("name", FUNCTIONS)
def test_floats_arrays_and_tensors_of_any_shape(name):
    function = FUNCTIONS[name]
    value = function(0.25)
    assert value.dtype == torch.float64
    assert not value.requires_grad
    lead = value.shape
    for d in (0.25, np.float32(0.25), torch.tensor(0.25), np.array(0.25)):
        assert torch.equal(function(d), value)
    for shape in ((), (1,), (3,), (2, 3), (0,), (2, 0)):
        assert function(torch.full(shape, 0.25)).shape == (*lead, *shape)
        assert function(np.full(shape, 0.25)).shape == (*lead, *shape)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_is_refused(name, value):
    with pytest.raises(ValueError, match="d must be finite"):
        FUNCTIONS[name](torch.tensor([0.1, value]))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("value", ["0.1", None, 0.1 + 0j, True, [0.1, "x"]])
def test_what_is_not_a_real_number_is_refused(name, value):
    with pytest.raises(TypeError, match="d must be real numbers"):
        FUNCTIONS[name](value)


@pytest.mark.parametrize("d", [0.5 + 1e-12, -0.51, 1.0])
def test_solve_and_derivative_stop_at_one_half(d):
    for function in (toy.solve, toy.derivative):
        with pytest.raises(ValueError, match=r"\|d\| ≤ 0\.5.*iterate"):
            function(torch.tensor([0.1, d], dtype=torch.float64))


@pytest.mark.parametrize("d", [toy.RADIUS, -toy.RADIUS, 0.6])
def test_hypergeometric_stops_at_the_radius(d):
    with pytest.raises(ValueError, match=r"\|d\| <"):
        toy.hypergeometric(d)


def test_hypergeometric_gives_up_just_below_the_radius():
    with pytest.raises(ValueError, match="max_terms = 100 "):
        toy.hypergeometric(0.53, max_terms=100)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: toy.iterate(0.1, -1), ValueError, "steps must be at least 0"),
        (lambda: toy.iterate(0.1, cast(Any, 2.0)), TypeError, "steps must be an integer"),
        (lambda: toy.iterate(0.1, True), TypeError, "steps must be an integer"),
        (lambda: toy.iterate(0.1, 2, y0=float("nan")), ValueError, "y0 must be finite"),
        (lambda: toy.iterate(torch.zeros(3), 2, y0=torch.zeros(2)), ValueError, "y0 .*does not broadcast"),
        (lambda: toy.series(0.1, 0), ValueError, "terms must be at least 1"),
        (lambda: toy.series(0.1, cast(Any, 1.5)), TypeError, "terms must be an integer"),
        (lambda: toy.hypergeometric(0.1, max_terms=0), ValueError, "max_terms must be at least 1"),
        (lambda: toy.solve(0.5 + 1e-9), ValueError, "got 0.500000001"),
    ],
)
def test_other_bad_arguments(call, error, words):
    with pytest.raises(error, match=words):
        call()
