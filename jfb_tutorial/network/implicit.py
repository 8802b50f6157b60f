"""The implicit network N(d) = S(u*), u* = R(u*, Q(d)): JFB (7)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import check_callable, check_choice
from .._phase import phase
from ..gradients import JFB, Unrolled
from ..solvers import FixedPointIteration, Solution
from ..solvers.iteration import eager
from .packing import LatentOperator, State

__all__ = ["ImplicitNetwork"]

ON_UNCONVERGED = ("ignore", "warn", "raise")


class ImplicitNetwork(nn.Module):
    """N(d) = S(u*), where u* = T(u*; d) = R(u*, Q(d)), JFB (6) and (7).

    A forward pass evaluates Q once, with its graph; iterates from u⁰ with the solver, without a graph, on the value of Q(d);
    and hands T(·; d) and what the solver found to the backward rule, whose value S maps to the inference. Training and
    evaluation do the same.

    A state may have several parts: where Q(d) is a tuple of tensors `(batch, …)` of one dtype and device, u is one too, R maps
    (u, q) to the like, and S takes it. Solvers and rules see one tensor `(batch, n)`, in which the parts are flattened and put one
    after another; so are `solve(d).u` and `last.u`, and `operator(d)` maps such tensors. `operator(d).unpack(u)` has the parts.

    A layer of one's own:

    >>> import torch
    >>> from torch import nn
    >>> from jfb_tutorial.network import ImplicitNetwork
    >>> from jfb_tutorial.normalisation import operator_norm
    >>> class Cell(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = operator_norm(nn.Linear(16, 16), 0.5)  # ‖W‖₂ ≤ 0.5: T is a contraction
    ...
    ...     def forward(self, u, q):
    ...         return torch.tanh(self.linear(u) + q)
    >>> network = ImplicitNetwork(nn.Linear(4, 16), Cell(), nn.Linear(16, 3))
    >>> nn.functional.cross_entropy(network(torch.randn(8, 4)), torch.arange(8) % 3).backward()
    >>> network.last.all_converged
    True

    Args:
        Q: maps the data `(batch, …)` to the latent space, `(batch, *latent)`, or a tuple of such tensors. Q, R and S are modules
            as a rule; they may be functions, but the parameters of a module that a function uses are not among
            `network.parameters()`, and an optimiser made from those does not train them.
        R: maps u and Q(d), both `(batch, *latent)`, to the same.
        S: maps `(batch, *latent)` to the inference.
        solver: how the fixed point is found; see `jfb_tutorial.solvers`.
        gradient: how the loss is differentiated; see `jfb_tutorial.gradients`. With `Unrolled` no solve is made.
        on_unconverged: what a solve does in which a sample missed the tolerance: "warn" with a RuntimeWarning, the first time
            only; "raise" a RuntimeError, each time; or "ignore" it. `last` tells in any case.

    Attributes:
        last: the `Solution` of the latest solve, without a graph; None until there is one.
        before_solve: None, or what a forward pass that records gradients calls as `before_solve(R, u0, q)`, without a graph,
            before it iterates; see `normalisation.Rescaling`.

    Raises:
        TypeError: an argument cannot be called.
        ValueError: an unknown on_unconverged.
    """

    # modules as a rule, of which one asks for parameters and layers, but any callable will do
    Q: Any
    R: Any
    S: Any

    def __init__(
        self,
        Q: Callable[[Any], Any],
        R: Callable[[Any, Any], Any],
        S: Callable[[Any], Any],
        *,
        solver: Callable[..., Solution] = FixedPointIteration(),  # noqa: B008  (frozen)
        gradient: Callable[..., Tensor] = JFB(),  # noqa: B008
        on_unconverged: str = "warn",
    ) -> None:
        super().__init__()
        for name, part in {"Q": Q, "R": R, "S": S, "solver": solver, "gradient": gradient}.items():
            check_callable(name, part)
        self.Q, self.R, self.S = Q, R, S
        self.solver, self.gradient = solver, gradient
        self.on_unconverged = check_choice("on_unconverged", on_unconverged, ON_UNCONVERGED)
        self.last: Solution | None = None
        self.before_solve: Callable[[Any, State, State], None] | None = None
        self._has_warned = False

    @eager
    def forward(self, d: Any, u0: State | None = None) -> Any:
        """The inference for the data `d`; `last` then tells how the solve went.

        Args:
            d: the data, `(batch, …)`.
            u0: where the iteration starts, a warm start: like Q(d) in shape, dtype and device (a tuple if that is one, or packed,
                as `last.u` is); zero by default. No gradient flows into it. The fixed point of a contraction does not depend on it,
                the number of steps does. JFB, NeumannSeries, ImplicitDifferentiation and UnrolledPhantom begin where the solver ended;
                `Unrolled` makes no solve and starts at zero whatever u0 is.

        Raises:
            TypeError, ValueError: u0 is not like Q(d), or Q, R do not fit together.
            FloatingPointError: the iteration left the finite numbers.
            RuntimeError: a sample missed the tolerance, with on_unconverged="raise".
        """
        T = self._operator(d)
        start = T.zeros() if u0 is None else T.start(u0)
        if not isinstance(self.gradient, Unrolled):
            # it may change the weights of R in place, as Rescaling does, hence before R is evaluated or recorded
            if self.before_solve is not None and torch.is_grad_enabled():
                with torch.no_grad():
                    self.before_solve(self.R, T.unpack(start), T.q)
            start = self._solve(T, start).u
        # without gradients nothing is recorded: the last step is one more of the iteration, and statistics do not learn from it
        with phase(recording=torch.is_grad_enabled()):
            u = self.gradient(T, start)
        return self.S(T.unpack(u))

    @eager
    def solve(self, d: Any, u0: State | None = None) -> Solution:
        """The fixed point for the data `d`, without a graph; arguments and errors as for `forward`."""
        with torch.no_grad():
            T = self._operator(d)
            return self._solve(T, T.zeros() if u0 is None else T.start(u0))

    def operator(self, d: Any) -> LatentOperator:
        """T(·; d), JFB (6), as a function of u; Q(d) is evaluated now, once, and keeps its graph.

        Where Q(d) is a tuple, it maps `(batch, n)` to the same, and its method `unpack(u)` gives the parts that R and S see.
        """
        return self._operator(d)

    @contextmanager
    def using(
        self,
        *,
        solver: Callable | None = None,
        gradient: Callable | None = None,
        mode: str | None = None,
        on_unconverged: str | None = None,
    ) -> Iterator[ImplicitNetwork]:
        """The network with other settings inside, and as it was afterwards: `with network.using(mode="eval"): …`.

        Put back are the solver, the rule, on_unconverged, `last`, and the mode of every module; parameters and buffers are not.

        Args:
            solver: instead of its own.
            gradient: instead of its own.
            mode: "train" or "eval", for all modules.
            on_unconverged: "ignore", "warn" or "raise", instead of its own.

        Raises:
            TypeError: a solver or a rule that cannot be called.
            ValueError: an unknown mode or on_unconverged.
        """
        for name, part in {"solver": solver, "gradient": gradient}.items():
            if part is not None:
                check_callable(name, part)
        if mode is not None:
            check_choice("mode", mode, ("train", "eval"))
        if on_unconverged is not None:
            check_choice("on_unconverged", on_unconverged, ON_UNCONVERGED)
        # of each module, since a caller may hold some of them in eval mode for good
        modes = [(module, module.training) for module in self.modules()]
        own = self.solver, self.gradient, self.on_unconverged, self.last
        try:
            self.solver, self.gradient = solver or self.solver, gradient or self.gradient
            self.on_unconverged = on_unconverged or self.on_unconverged
            if mode is not None:
                self.train(mode == "train")
            yield self
        finally:
            self.solver, self.gradient, self.on_unconverged, self.last = own
            for module, training in modes:
                module.training = training  # and not train(), which sets the children as well

    @eager
    def _operator(self, d: Any) -> LatentOperator:
        return LatentOperator(self.R, self.Q(d))

    @eager
    def _solve(self, T: LatentOperator, start: Tensor) -> Solution:
        with phase(recording=False):
            # what was found before is let go first: a tensor less that competes for the processor's cache
            # (into the dictionary, since nn.Module's own way looks for parameters and takes some microseconds)
            vars(self)["last"] = None
            # `last` is set before anything is raised, so that it tells about a failed solve too
            solution = vars(self)["last"] = self.solver(T, start)
        if self.on_unconverged == "raise" or (self.on_unconverged == "warn" and not self._has_warned):
            # our solvers know it from the read that let them stop; asking `converged` would be another read of the device
            met = getattr(solution, "all_converged", None)
            if not (bool(solution.converged.all()) if met is None else met):
                self._report(solution)
        return solution

    def _report(self, solution: Solution) -> None:
        """Raise, or warn for the first and last time, that samples missed the tolerance."""
        message = _missed(solution, self.solver) + "; " + "; ".join(_remedies(self.R))
        if self.on_unconverged == "raise":
            raise RuntimeError(message)
        # first, so that it counts as said even where a filter turns the warning into an error
        self._has_warned = True
        warnings.warn(f"{message}. This is said once a network", RuntimeWarning, stacklevel=2)

    def extra_repr(self) -> str:
        """The solver and the rule, for `print(network)`."""
        return f"solver={self.solver}, gradient={self.gradient}"


def _missed(solution: Solution, solver: Callable) -> str:
    """How many samples missed the tolerance, and by how much."""
    # a solver of the user's own need not have a tol: then the message has none
    missed = ~solution.converged
    tol = (
        f", {'relative ' if getattr(solver, 'relative', False) else ''}tol {solver.tol:.1e}"
        if hasattr(solver, "tol")
        else ""
    )
    return (
        f"{int(missed.sum())} of {len(missed)} samples missed the tolerance after {int(solution.steps.max())} evaluations of R, "
        f"worst residual {solution.residual.max():.1e}{tol}"
    )


def _remedies(R: Callable) -> list[str]:
    """What to try, the likeliest first."""
    modules = list(R.modules()) if isinstance(R, nn.Module) else []
    remedies = []
    # PyTorch's common base of Dropout, Dropout2d, AlphaDropout …; with p = 0 they do nothing
    if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.training and m.p for m in modules):
        remedies.append("dropout in R makes another T of every step, which has no fixed point: move it to Q or S")
    return [
        *remedies,
        "raise the solver's max_steps or tol, or try Anderson()",
        "if the residual does not fall, R is no contraction: damp it, or see normalisation.operator_norm",
        'on_unconverged="ignore" accepts it',
    ]
