"""Optimisers: those of PyTorch, on the parameters of a network as a recipe says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..network import ImplicitNetwork
from .recipes import Recipe

__all__ = ["ConvolutionMuon", "Together", "optimiser"]

MUON_RATE, MUON_DECAY = 0.1, 50.0
"""Muon's steps have a size of their own: its learning rate is a tenth of SGD's, and its weight decay, which it applies as AdamW
does, fifty times SGD's; tried once on 8,000 images of CIFAR-10, and not tuned."""


class ConvolutionMuon(torch.optim.Muon):
    """PyTorch's Muon (Jordan 2024) for the weights of convolutions, each taken as a matrix with a row for each output channel."""

    def __init__(self, weights: Iterable[Tensor], **settings) -> None:
        self.weights = list(weights)
        # PyTorch's Muon takes matrices only; these are views of the weights, so that a step on them moves the weights
        super().__init__([_matrix(weight.detach(), weight) for weight in self.weights], **settings)

    @torch.no_grad()
    def step(self, closure=None):
        """A step, with the gradients that the convolutions' weights have."""
        for weight, matrix in zip(self.weights, self.param_groups[0]["params"], strict=True):
            matrix.grad = None if weight.grad is None else _matrix(weight.grad, weight)
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of the weights and of their matrices."""
        super().zero_grad(set_to_none)
        for weight in self.weights:
            weight.grad = None


class Together:
    """Several optimisers as one."""

    def __init__(self, *optimisers: torch.optim.Optimizer) -> None:
        self.optimisers = optimisers

    def set_rate(self, lr: float) -> None:
        """The learning rate of each, in the ratio that their groups' `scale` says."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                # a group keeps keys that its optimiser does not know, here the ratio of Muon's rate to that of SGD
                group["lr"] = lr * group.get("scale", 1.0)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)

    def step(self) -> None:
        """A step of each."""
        for optimiser in self.optimisers:
            optimiser.step()

    def state(self) -> dict[str, Tensor | float]:
        """What they remember, by names that `load` understands."""
        state: dict[str, Tensor | float] = {}
        for which, optimiser in enumerate(self.optimisers):
            prefix = f"{which}." if which else ""  # a run with one optimiser has the names it always had
            for index, values in optimiser.state_dict()["state"].items():
                state |= {f"{prefix}{index}.{name}": value for name, value in values.items()}
        return state

    def load(self, state: dict[str, Tensor | float]) -> None:
        """Remember again what `state` told."""
        for which, optimiser in enumerate(self.optimisers):
            own: dict[int, dict] = {}
            for key, value in state.items():
                *prefix, index, name = key.split(".")
                if int(prefix[0] if prefix else 0) == which:
                    own.setdefault(int(index), {})[name] = value
            # the groups are as the recipe makes them and the rate is set in each step: only the state is of the past
            optimiser.load_state_dict(optimiser.state_dict() | {"state": own})


def optimiser(recipe: Recipe, network: ImplicitNetwork) -> Together:
    """What the recipe trains the network with.

    Raises:
        ValueError: "muon" for a network whose Q has no convolutions.
    """
    settings: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    nesterov: dict[str, Any] = {"momentum": 0.9, "nesterov": True}
    parameters = list(network.parameters())
    match recipe.optimiser:
        case "sgd":
            return Together(torch.optim.SGD(_groups(parameters, recipe), **nesterov, **settings))
        case "adam":
            return Together(torch.optim.Adam(_groups(parameters, recipe), **settings))
        case "adamw":
            return Together(torch.optim.AdamW(_groups(parameters, recipe), **settings))
    # on R a step that turns all its directions equally would stretch what the solver has to contract
    theirs = (
        [weight for weight in network.Q.parameters() if weight.ndim == 4] if isinstance(network.Q, nn.Module) else []
    )
    if not theirs:
        raise ValueError("optimiser 'muon' is for the convolutions of Q, and this Q has none; take sgd or adam")
    rest = [parameter for parameter in parameters if not any(parameter is weight for weight in theirs)]
    muon = ConvolutionMuon(theirs, **nesterov, weight_decay=MUON_DECAY * recipe.weight_decay)
    muon.param_groups[0]["scale"] = MUON_RATE
    return Together(torch.optim.SGD(_groups(rest, recipe), **nesterov, **settings), muon)


def _groups(parameters: list[nn.Parameter], recipe: Recipe) -> list[dict]:
    if recipe.decay == "all":
        return [{"params": parameters}]
    # biases, and the factors and shifts of normalisations
    few = [parameter for parameter in parameters if parameter.ndim < 2]
    many = [parameter for parameter in parameters if parameter.ndim >= 2]
    return [{"params": many}, {"params": few, "weight_decay": 0.0}]


def _matrix(x: Tensor, weight: Tensor) -> Tensor:
    """x, of a weight's shape, as a matrix, its columns in the order of the weight's memory: so the weight's own is a view of it."""
    # (out, in, height, width) lies in memory as (out, height, width, in): flattening that copies nothing
    if weight.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.flatten(1)
