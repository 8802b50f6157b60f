"""A deep equilibrium transformer: the network, the training and the measures of chapter 16.

After Bai, Kolter and Koltun (2019) and their code (github.com/locuslab/deq, commit 7a97162, DEQ-Sequence/models/deq_transformer.py): one
transformer block whose weights all steps share, and the tokens enter each step through queries, keys and values. Smaller here are
the width, the context, and four things: positions are learned and absolute, there is no memory of earlier windows, no dropout and
no weight normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm

from .._checks import check_choice, check_integer
from ..gradients import JFB, Unrolled
from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration
from ..theory import jacobian_penalty
from ..training import texts
from .fitting import fit

__all__ = ["Block", "Embed", "Read", "bits", "diagonal", "jacobian", "losses", "network", "perplexity", "train"]

NORMS = ("post", "pre")
WIDTH = 128
HEADS = 4
INNER = 512
CONTEXT = 64
STEPS = 12
"""How many steps the solver takes in training, always: a stop that asks for the residual would depend on later tokens."""
BATCH = 16
UPDATES = 1000
RATE = 2e-3
WARM = 50
"""Updates over which the learning rate rises, at most an eighth of all."""


class Embed(nn.Module):
    """Q: a vector for each token and one for each place, added."""

    def __init__(self, vocabulary: int, width: int = WIDTH, context: int = CONTEXT) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Embedding(context, width)

    def forward(self, d: Tensor) -> Tensor:
        """Token numbers `(batch, length)` to `(batch, length, width)`.

        Raises:
            ValueError: more tokens than the context.
        """
        length, most = d.shape[1], self.place.num_embeddings
        if length > most:
            raise ValueError(f"d must hold at most {most} tokens, the context, got {length}; cut it into windows")
        return self.token(d) + self.place.weight[:length]


class Block(nn.Module):
    """R(u, q): one step of all places, causal attention and a layer for each place alone.

    With h = u + O attention(W u + U q), "post" normalises after each sum, as in the first transformers: N(N(h) + F(N(h))). "pre"
    normalises what attention and F read, N(h) + F(N(h)) with W N(u) in place of W u; in the published code the second sum starts from
    N(h), too, and not from h as in an explicit network, so that u cannot grow from step to step. N has no weights.

    Args:
        width: of u, a multiple of `heads`.
        heads: of attention.
        inner: the width inside F.
        norm: "post" or "pre".

    Raises:
        ValueError: an unknown norm, or a width that is no multiple of heads.
    """

    causal = True

    def __init__(self, width: int = WIDTH, heads: int = HEADS, inner: int = INNER, norm: str = "post") -> None:
        super().__init__()
        self.norm = check_choice("norm", norm, NORMS)
        if width % check_integer("heads", heads, 1, "4 is the default"):
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}; 128 and 4 would do")
        self.heads = heads
        self.W = nn.Linear(width, 3 * width, bias=False)
        self.U = nn.Linear(width, 3 * width)
        self.O = nn.Linear(width, width)
        self.F = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        """`(batch, length, width)`; what comes out at a place depends on that place and those before it alone."""
        pre = self.norm == "pre"
        h = u + self.O(self.attention(self.W(_normalised(u) if pre else u) + self.U(q)))
        h = _normalised(h)
        v = h + self.F(h)
        return v if pre else _normalised(v)

    def attention(self, x: Tensor) -> Tensor:
        """Of queries, keys and values side by side, `(batch, length, 3 width)`."""
        # (batch, heads, length, width / heads) each
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in x.chunk(3, dim=-1))
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        return (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)


def _normalised(x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:])


class Read(nn.Module):
    """S: a logit for each token that may come next.

    Args:
        vocabulary: how many there are.
        width: of u.
        tied: an embedding whose matrix `(vocabulary, width)` it uses; one of its own without.
    """

    def __init__(self, vocabulary: int, width: int = WIDTH, tied: nn.Embedding | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(width, vocabulary)
        if tied is not None:
            self.linear.weight = tied.weight

    def forward(self, u: Tensor) -> Tensor:
        """`(batch, length, width)` to `(batch, length, vocabulary)`."""
        return self.linear(u)


def network(
    vocabulary: int,
    seed: int,
    *,
    norm: str = "post",
    gradient: Callable[..., Tensor] = JFB(),  # noqa: B008
    steps: int = STEPS,
    width: int = WIDTH,
    heads: int = HEADS,
    inner: int = INNER,
    context: int = CONTEXT,
    tied: bool = False,
) -> ImplicitNetwork:
    """The untrained network of a seed.

    Args:
        vocabulary: how many tokens there are.
        seed: of its weights.
        norm: "post" or "pre", see `Block`.
        gradient: the backward rule.
        steps: of the solver, always as many.
        width, heads, inner, context: sizes.
        tied: whether S uses the matrix of the embedding, as with large vocabularies. It then shares parameters with Q, against
            Assumption 3.2 of JFB, and `theory.criterion` refuses it.
    """
    torch.manual_seed(seed)
    Q, R = Embed(vocabulary, width, context), Block(width, heads, inner, norm)
    S = Read(vocabulary, width, Q.token if tied else None)
    if tied:
        # logits of a row of length about √width should have a size of about 1
        nn.init.normal_(Q.token.weight, std=width**-0.5)
        nn.init.normal_(Q.place.weight, std=width**-0.5)
    solver = FixedPointIteration(max_steps=steps, check_every=0)
    return ImplicitNetwork(Q, R, S, solver=solver, gradient=gradient, on_unconverged="ignore")


def train(
    network: ImplicitNetwork,
    tokens: Tensor,
    seed: int,
    *,
    updates: int = UPDATES,
    batch: int = BATCH,
    rate: float = RATE,
    penalty: float = 0.0,
    every: int = 2,
    watch: Callable[[int, float, float], bool | None] = lambda update, value, seconds: None,
) -> list[float]:
    """Adam on random windows, with a rate that rises over 50 updates (an eighth of fewer than 400) and falls as a cosine to a tenth, gradients clipped to length 1.

    Args:
        network: one of `network`.
        tokens: `(N,)`, the text to train on.
        seed: of the windows.
        updates: how many.
        batch: windows an update.
        rate: the highest learning rate.
        penalty: the strength of `theory.jacobian_penalty`, added in every `every`-th update, as Bai, Koltun and Kolter (2021) do in a
            random share of them; it rises from 0 over the first half of training.
        every: see there.
        watch: as for `fitting.fit`.

    Returns:
        The losses, in nats a token, without the penalty.

    Raises:
        ValueError: a penalty with the rule `Unrolled`, which finds no equilibrium to flatten.
    """
    if penalty and isinstance(network.gradient, Unrolled):
        raise ValueError("penalty needs an equilibrium, and Unrolled makes no solve; take another rule, or penalty=0.0")
    windows, noise = (torch.Generator().manual_seed(2 * seed + k) for k in range(2))
    context = network.Q.place.num_embeddings
    plain: list[float] = []

    def loss(update: int) -> Tensor:
        d, y = texts.windows(tokens, batch, context, windows)
        value = cross_entropy(network(d).flatten(0, 1), y.flatten())
        plain.append(value.item())
        if not penalty or update % every:
            return value
        assert network.last is not None
        strength = penalty * min(1.0, 2 * update / updates)
        return value + strength * jacobian_penalty(network.operator(d), network.last.u, generator=noise)

    def factor(update: int) -> float:
        rising = min(1.0, (update + 1) / max(1, min(WARM, updates // 8)))
        return rising * (0.55 + 0.45 * math.cos(math.pi * update / updates))

    def seen(update: int, value: float, seconds: float) -> bool | None:
        return watch(update, plain[-1] if plain else value, seconds)

    fit(network, loss, updates=updates, rate=rate, factor=factor, clip=1.0, watch=seen)
    return plain


@torch.no_grad()
def losses(network: ImplicitNetwork, d: Tensor, y: Tensor, at: tuple[int, ...], *, batch: int = 32) -> Tensor:
    """The mean loss in nats a token after so many steps from zero: what is read is T^k(0).

    Args:
        network: its solver and its rule play no part.
        d: tokens, `(count, length)`.
        y: those that follow, `(count, length)`.
        at: numbers of steps, rising, the first at least 1.
        batch: windows at a time.

    Returns:
        `(len(at),)`.

    Raises:
        ValueError: `at` does not rise from 1 or more.
    """
    if not at or at[0] < 1 or any(a >= b for a, b in pairwise(at)):
        raise ValueError(f"at must rise, from 1 or more, got {at}; (1, 12, 24) would do")
    total = torch.zeros(len(at), dtype=torch.float64)
    for part, truth in zip(d.split(batch), y.split(batch), strict=True):
        T = network.operator(part)
        u = T.zeros()
        for step in range(1, at[-1] + 1):
            u = T(u)
            if step in at:
                value = cross_entropy(network.S(u).flatten(0, 1), truth.flatten(), reduction="sum")
                total[at.index(step)] += value.double().cpu()
    return total / y.numel()


def bits(loss: float) -> float:
    """Nats as bits: bits a character, where a token is one."""
    return loss / math.log(2)


def perplexity(loss: float) -> float:
    """exp of a loss in nats: between how many tokens, all as likely, one would have to choose to lose as much."""
    return math.exp(loss)


def jacobian(T: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """dT/du at one sequence, place by place: `[t, :, s]` is the block dT_t/du_s.

    T at a place depends on that place and earlier ones: the blocks with s > t are zero, and the eigenvalues of dT/du are those of the
    blocks `[t, :, t]`.

    Args:
        T: maps `(1, length, width)` to the like.
        u: `(1, length, width)`.

    Returns:
        `(length, width, length, width)`.

    Raises:
        ValueError: u is not of one sequence.
    """
    if u.ndim != 3 or len(u) != 1:
        raise ValueError(f"u must be of one sequence, (1, length, width), got {tuple(u.shape)}; pass u[:1]")
    length, width = u.shape[1:]
    at = u.detach().clone().requires_grad_()
    with torch.enable_grad():
        v = T(at)
    rows = []
    for place in range(length):
        # a product for each number of the place, all at once
        cotangents = u.new_zeros(width, 1, length, width)
        cotangents[:, 0, place] = torch.eye(width, dtype=u.dtype, device=u.device)
        (sent,) = torch.autograd.grad(v, at, cotangents, retain_graph=True, is_grads_batched=True)
        rows.append(sent[:, 0])
    return torch.stack(rows)


def diagonal(J: Tensor) -> Tensor:
    """The blocks of `jacobian` of each place by itself, `(length, width, width)`."""
    return torch.stack([J[t, :, t] for t in range(len(J))])
