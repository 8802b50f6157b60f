"""The bench: one equilibrium, every backward rule, side by side."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._checks import check_finite
from ._jacobian import buffers_kept
from .gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom, tally
from .network import ImplicitNetwork
from .solvers import Solution

__all__ = ["RULES", "Comparison", "Row", "compare", "name", "saved_bytes"]

RULES = (
    ImplicitDifferentiation("gmres"),
    ImplicitDifferentiation("cg"),
    NeumannSeries(6),
    NeumannSeries(6, 0.5),
    UnrolledPhantom(5, 0.5),
    JFB(),
    Unrolled(50),
)
"""The rules that `compare` takes by default; NeumannSeries(6) is the JFB paper's "Neumann, order 5"."""


@dataclass(frozen=True)
class Row:
    """What a rule gave, and what it took.

    Attributes:
        rule: the rule.
        cosine: between its gradient and the exact one, over the parameters of Q and R.
        bias: ‖its gradient − the exact one‖ / ‖the exact one‖, over the same.
        evaluations: evaluations of T that it recorded.
        products: products with the Jacobian in its backward pass, see `gradients.Tally`.
        saved: bytes that it keeps from the forward for the backward pass, see `saved_bytes`.
    """

    rule: Callable
    cosine: float
    bias: float
    evaluations: int
    products: int
    saved: int


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` found.

    Attributes:
        rows: one a rule.
        steps: evaluations of T that the solver made to find the equilibrium.
        residual: ‖T(u) − u‖₂ of the worst sample at it.
    """

    rows: tuple[Row, ...]
    steps: int
    residual: float

    def __getitem__(self, rule: Callable) -> Row:
        """The row of a rule; KeyError if it was not compared."""
        for row in self.rows:
            if row.rule == rule:
                return row
        raise KeyError(
            f"{rule} was not compared; compared were {', '.join(map(repr, (row.rule for row in self.rows)))}"
        )

    def _cells(self) -> list[tuple[str, ...]]:
        head: tuple[str, ...] = ("rule", "cosine", "bias", "evaluations", "products", "saved KiB")
        return [head] + [
            (
                name(row.rule),
                f"{row.cosine:.4f}",
                "< 1e-5" if row.bias < 1e-5 else f"{row.bias:.2g}",
                str(row.evaluations),
                str(row.products),
                f"{row.saved / 1024:.1f}",
            )
            for row in self.rows
        ]

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(len(row[i]) for row in cells) for i in range(6)]
        return "\n".join(
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            for row in cells
        )

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        rows = "".join(
            # a rule's name may wrap, but not within "λ = 0.5"
            f'<tr><th scope="row">{html.escape(row[0]).replace(" = ", "&nbsp;=&nbsp;")}</th>'
            + "".join(f"<td>{cell}</td>" for cell in row[1:])
            + "</tr>"
            for row in body
        )
        # the longest heading may break, so that six columns fit a page between its sidebars, and nearly a phone
        titles = "".join(f'<th scope="col">{cell.replace("evaluations", "evalu&shy;ations")}</th>' for cell in head)
        return (
            "<style>.jfb-bench{border-collapse:collapse;font-size:.9em;font-variant-numeric:tabular-nums}"
            ".jfb-bench th,.jfb-bench td{text-align:right;padding:.15em .5em;border:0;white-space:nowrap;"
            "border-bottom:1px solid rgba(128,128,128,.35);background:transparent;vertical-align:bottom}"
            ".jfb-bench th{white-space:normal;font-weight:normal}.jfb-bench thead th{font-weight:600}"
            ".jfb-bench th:first-child{text-align:left;padding-left:0}"
            "@media(max-width:480px){.jfb-bench th,.jfb-bench td{padding:.15em .25em;font-size:.88em}}</style>"
            # tabindex: a table that is wider than the page can be scrolled from the keyboard
            f'<div style="overflow-x:auto" tabindex="0" role="region" aria-label="backward rules compared">'
            f'<table class="jfb-bench"><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>'
        )


def compare(
    network: ImplicitNetwork,
    d: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    rules: Sequence[Callable] = RULES,
    *,
    reference: Callable = ImplicitDifferentiation(tol=1e-10),  # noqa: B008  (frozen)
) -> Comparison:
    """All rules at one equilibrium.

    The network's own solver finds u* once. Every rule then differentiates the same loss there. The network is used as it is,
    in its mode and precision: float64 and a tight tolerance show the rules, and a loose tolerance what it does to them. No
    gradient is left behind, and its buffers (running statistics) are put back.

    Args:
        network: its Q and R must have parameters; its own rule plays no part.
        d: the data, `(batch, …)`.
        y: the targets.
        loss: `loss(prediction, y)`, a scalar.
        rules: the rules to compare.
        reference: what counts as exact.

    Raises:
        ValueError: no parameter of Q or R requires a gradient.
        FloatingPointError: a parameter or a buffer is not finite, or an iteration left the finite numbers.
        RuntimeError: the reference, or a rule, fails to solve its system.

    Example:
        One number, T(u) = u/2 + d·w: the exact gradient is twice JFB's, so that JFB points the right way and is half as long.

        >>> class Half(torch.nn.Linear):
        ...     def forward(self, u, q):
        ...         return u / 2 + super().forward(q)
        >>> R = Half(1, 1, bias=False).double()
        >>> network = ImplicitNetwork(torch.nn.Identity(), R, torch.nn.Identity())
        >>> d = torch.ones(1, 1, dtype=torch.float64)
        >>> table = compare(network, d, d, lambda prediction, y: (prediction - y).sum(), [JFB(), NeumannSeries(2)])
        >>> [(row.rule, row.products, round(row.cosine, 6), round(row.bias, 6)) for row in table.rows]
        [(JFB(), 0, 1.0, 0.5), (NeumannSeries(terms=2, damping=1.0), 1, 1.0, 0.25)]
    """
    parts = [part for part in (network.Q, network.R) if isinstance(part, torch.nn.Module)]
    # each parameter once and in order: Q and R may share one
    theta = list(dict.fromkeys(p for part in parts for p in part.parameters() if p.requires_grad))
    if not theta:
        raise ValueError("network must have parameters in Q or R that require a gradient: there is nothing to compare")
    check_finite(network)
    with buffers_kept(network):
        solution, steps = _solve(network, d)
        exact, *_ = _measure(network, d, y, loss, theta, solution.u, reference)
        rows = []
        for rule in rules:
            gradient, evaluations, products, saved = _measure(network, d, y, loss, theta, solution.u, rule)
            # eps=0: the default, a least norm of 1e-8, would shrink the cosine of tiny gradients
            cosine = torch.nn.functional.cosine_similarity(gradient, exact, dim=0, eps=0).item()
            bias = ((gradient - exact).norm() / exact.norm()).item()
            rows.append(Row(rule, cosine, bias, evaluations, products, saved))
    return Comparison(tuple(rows), steps, solution.residual.max().item())


def _solve(network: ImplicitNetwork, d: Tensor) -> tuple[Solution, int]:
    """The equilibrium, and the evaluations of T that the solver made; not every one of them need be checked."""
    own, count = network.solver, _Count()
    with network.using(solver=lambda T, u0: own(count.of(T), u0)):
        return network.solve(d), count.evaluations


def _measure(
    network: ImplicitNetwork, d: Tensor, y: Tensor, loss: Callable, theta: Sequence[Tensor], u: Tensor, rule: Callable
):
    """The gradient by θ, flat, in float64; the evaluations of T, the products with J, the bytes saved."""
    T, evaluated = network.operator(d), _Count()
    # around the rule alone: Q and S record the same whatever the rule
    with saved_bytes([*network.parameters(), *network.buffers()]) as saved:
        value = rule(evaluated.of(T), u)
    with tally() as count:
        # not backward(), which would add to the `grad` of the parameters; zeros for one that the loss does not depend on
        parts = torch.autograd.grad(loss(network.S(T.unpack(value)), y), theta, materialize_grads=True)
    # in float64: a float32 sum over a million parameters is off in the fourth digit of a cosine
    return torch.cat([part.flatten() for part in parts]).double(), evaluated.evaluations, count.products, saved.total


class _Count:
    """Counts the evaluations of a T."""

    def __init__(self) -> None:
        self.evaluations = 0

    def of(self, T: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def counted(u: Tensor) -> Tensor:
            self.evaluations += 1
            return T(u)

        return counted


class saved_bytes:
    """Bytes that autograd keeps for the backward pass of what is computed inside: `with saved_bytes() as saved: …; saved.total`.

    A storage that is saved several times counts once, and those of `given`, such as the parameters, which are there
    anyway, count not at all.
    """

    def __init__(self, given: Sequence[Tensor] = ()) -> None:
        self._storages: dict[int, int] = {}  # bytes by address
        self._given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    @property
    def total(self) -> int:
        """The bytes so far."""
        return sum(self._storages.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._given:
            self._storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that holds itself would never be freed

    def __enter__(self) -> saved_bytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._hooks.__exit__(*error)


def name(rule: Callable) -> str:
    """A rule in a few words, such as `NeumannSeries(5), λ = 0.5`."""
    match rule:
        case ImplicitDifferentiation():
            return f"exact, {rule.solver}" + (" per sample" if rule.per_sample else "")
        case NeumannSeries():
            return f"NeumannSeries({rule.terms}), λ = {rule.damping:g}"
        case UnrolledPhantom():
            return f"UnrolledPhantom({rule.steps}), λ = {rule.damping:g}"
        case Unrolled():
            return f"Unrolled({rule.steps})"
        # JFB, PublishedCG, a rule of the user's own
        case _:
            return repr(rule).removesuffix("()")
