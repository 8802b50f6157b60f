"""`Solution`, whose tables are made when they are first asked for: nobody can tell."""

import copy
import dataclasses
import pickle

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jfb_tutorial import JFB, Anderson, Broyden, FixedPointIteration, ImplicitNetwork
from jfb_tutorial.solvers import Solution

SOLVERS = [FixedPointIteration, Anderson, Broyden]
RATES = torch.tensor([[0.1], [0.5], [0.99]], dtype=torch.float64)


def solved(solver=FixedPointIteration, **settings) -> Solution:
    """Three samples, of which the last does not converge."""
    return solver(tol=1e-3, max_steps=15, check_every=2, **settings)(lambda u: RATES * torch.cos(u) + 1, 0 * RATES)


def same(a: Solution, b: Solution) -> bool:
    tensors = all(
        torch.equal(getattr(a, n), getattr(b, n)) for n in ("u", "residuals", "steps", "converged", "residual")
    )
    return tensors and a.all_converged is b.all_converged


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    "through",
    [
        copy.copy,
        copy.deepcopy,
        lambda solution: pickle.loads(pickle.dumps(solution)),
        dataclasses.replace,
        lambda solution: Solution(
            **{field.name: getattr(solution, field.name) for field in dataclasses.fields(solution)}
        ),
    ],
)
def test_a_solution_is_copied_and_saved_whole(solver, relative, through):
    solution = solved(solver, relative=relative)
    other = through(solution)
    assert same(other, solved(solver, relative=relative))
    assert same(other, solution)
    assert vars(other).keys() == vars(solution).keys() == {field.name for field in dataclasses.fields(Solution)}
    assert repr(other) == repr(solution)


def test_a_solution_holds_no_more_than_its_fields_once_a_table_was_asked_for():
    solution = solved()
    assert solution.steps.tolist() == solved().steps.tolist()
    assert len(solution.residuals) == 8
    assert vars(solution).keys() == {field.name for field in dataclasses.fields(Solution)}


def test_a_solution_is_frozen_and_has_no_other_attributes():
    solution = solved()
    for name in ("steps", "u", "new"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(solution, name, torch.ones(3))
    with pytest.raises(AttributeError, match="no attribute 'stepps'"):
        _ = solution.stepps  # type: ignore[attr-defined]
    assert not hasattr(Solution.__new__(Solution), "steps")  # as while it is being unpickled


def test_the_tables_have_no_graph_wherever_they_are_asked_for():
    T = torch.nn.Linear(3, 3)
    with torch.inference_mode():
        inferred = FixedPointIteration(max_steps=3)(T, torch.zeros(2, 3))
    plain = FixedPointIteration(max_steps=3)(T, torch.zeros(2, 3))
    with torch.enable_grad():
        for solution in (inferred, plain):
            assert not solution.residuals.requires_grad
            assert solution.steps.tolist() == [3, 3]


class Operations(TorchDispatchMode):
    """The names of the operations that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


def test_a_training_step_makes_no_tables():
    network = ImplicitNetwork(
        torch.nn.Identity(), lambda u, q: torch.tanh(0.5 * u + q), torch.nn.Identity(), gradient=JFB()
    )
    network.solver = FixedPointIteration(relative=True)
    d = torch.ones(2, 3, requires_grad=True)
    with Operations() as operations:
        network(d).sum().backward()
    assert not {"stack", "arange", "clamp"} & set(operations.names)
    # an evaluation: three operations of T, two norms, and what is compared
    evaluations = operations.names.count("_local_scalar_dense")
    assert operations.names.count("sub") == 2 * evaluations  # T(u) − u, and the residual less tol ‖T(u)‖
    assert network.last is not None
    assert len(network.last.residuals) == evaluations
