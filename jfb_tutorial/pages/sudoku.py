"""Sudoku of six by six cells: the puzzles, the network and the training of chapter 14, for its measurements and its explorer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..gradients import JFB, Unrolled
from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration
from .fitting import fit, restored

__all__ = [
    "Look",
    "Read",
    "Step",
    "network",
    "one_hot",
    "puzzle",
    "puzzles",
    "recorded",
    "right",
    "singles",
    "solutions",
    "solver",
    "train",
]

GIVENS = 18
"""How many digits the puzzles of training show."""
POOL = 3000
"""How many puzzles there are to train on."""
BATCH = 16
UPDATES = 200
STEPS = 32
"""How many steps the solver takes in training, at most."""
CHANNELS = 32

CELLS = 36
UNITS = (
    [[6 * r + c for c in range(6)] for r in range(6)]
    + [[6 * r + c for r in range(6)] for c in range(6)]
    + [[6 * (2 * (b // 2) + i) + 3 * (b % 2) + j for i in range(2) for j in range(3)] for b in range(6)]
)
"""Rows, columns and boxes (two cells high, three wide): of six cells each, which hold the digits 1 to 6."""
PEERS = [sorted({peer for unit in UNITS if cell in unit for peer in unit} - {cell}) for cell in range(CELLS)]

# which digits a cell may still hold is a number of six bits
_ALL = 0b111111
_BITS = [[1 << i for i in range(6) if mask >> i & 1] for mask in range(64)]


def _put(free: list[int], cell: int, bit: int) -> bool:
    """Put a digit into a cell, and whatever it leaves but one digit for; False where a cell is left with none."""
    if not free[cell] & bit:
        return False
    free[cell] = bit
    todo = [cell]
    while todo:
        at = todo.pop()
        for peer in PEERS[at]:
            if free[peer] & free[at]:
                free[peer] &= ~free[at]
                if not free[peer]:
                    return False
                if len(_BITS[free[peer]]) == 1:
                    todo.append(peer)
    return True


def _begun(grid: Sequence[int]) -> list[int] | None:
    """What each cell may hold once the givens are put in; None where they clash."""
    free = [_ALL] * CELLS
    if all(_put(free, cell, 1 << digit - 1) for cell, digit in enumerate(grid) if digit):
        return free
    return None


def solutions(grid: Sequence[int], most: int = 2, shuffle: random.Random | None = None) -> list[list[int]]:
    """The solutions of a puzzle, at most so many.

    Args:
        grid: its 36 cells row by row, 0 for an empty one.
        most: where to stop; with 2 one sees whether the solution is the only one.
        shuffle: the order in which digits are tried; ascending without.
    """
    found: list[list[int]] = []

    def search(free: list[int]) -> None:
        open_cells = [cell for cell in range(CELLS) if len(_BITS[free[cell]]) > 1]
        if not open_cells:
            found.append([mask.bit_length() for mask in free])
            return
        cell = min(open_cells, key=lambda cell: len(_BITS[free[cell]]))
        for bit in shuffle.sample(_BITS[free[cell]], len(_BITS[free[cell]])) if shuffle else _BITS[free[cell]]:
            mine = free.copy()
            if _put(mine, cell, bit):
                search(mine)
            if len(found) == most:
                return

    free = _begun(grid)
    if free is not None:
        search(free)
    return found


def singles(grid: Sequence[int]) -> bool:
    """Whether two rules solve it: a cell with one digit left takes it, and so does a digit with one cell left in a row, column or box."""
    free = _begun(grid)
    while free is not None and any(len(_BITS[mask]) > 1 for mask in free):
        before = free.copy()
        for unit in UNITS:
            for bit in _BITS[_ALL]:
                places = [cell for cell in unit if free[cell] & bit]
                if not places or (len(places) == 1 and free[places[0]] != bit and not _put(free, places[0], bit)):
                    return False
        if free == before:
            return False
    return free is not None


def puzzle(givens: int, shuffle: random.Random) -> tuple[list[int], list[int]]:
    """A puzzle of so many givens with one solution, and that: a full grid, from which digits are taken in random order.

    Where a grid does not give up enough of its digits, another is tried; below 10 givens that takes long.
    """
    while True:
        solution = solutions([0] * CELLS, 1, shuffle)[0]
        grid, left = solution.copy(), CELLS
        for cell in shuffle.sample(range(CELLS), CELLS):
            if left == givens:
                return grid, solution
            grid[cell] = 0
            if len(solutions(grid)) == 1:
                left -= 1
            else:
                grid[cell] = solution[cell]
        if left == givens:
            return grid, solution


def puzzles(count: int, givens: int, seed: int) -> tuple[Tensor, Tensor]:
    """Puzzles and their solutions, integers `(count, 6, 6)`, 0 for an empty cell."""
    shuffle = random.Random(seed)
    pairs = [puzzle(givens, shuffle) for _ in range(count)]
    given, solved = (torch.tensor([pair[i] for pair in pairs]).reshape(-1, 6, 6) for i in range(2))
    return given, solved


def one_hot(given: Tensor) -> Tensor:
    """Integers `(count, 6, 6)` as what the network reads: `(count, digit, row, column)`, 1 where the digit is given, else 0."""
    return (given.unsqueeze(1) == torch.arange(1, 7).reshape(6, 1, 1)).to(torch.get_default_dtype())


def _boxes(u: Tensor) -> Tensor:
    """A view with rows and columns split by boxes: `(batch, digit, band, row in it, stack, column in it, channels)`."""
    return u.unflatten(3, (2, 3)).unflatten(2, (3, 2))


class Look(nn.Module):
    """Q: of each digit in each cell, whether it is given, as channels."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.linear = nn.Linear(1, channels)

    def forward(self, d: Tensor) -> Tensor:
        """`(batch, 6, 6, 6)` to `(batch, 6, 6, 6, channels)`."""
        return self.linear(d.unsqueeze(-1))


class Step(nn.Module):
    """R(u, q): each digit of each cell hears of itself, and of the means over its row, its column, its box and its cell.

    The weights are the same for all digits and all cells. Of the old state the share `damping` is kept.
    """

    def __init__(self, channels: int = CHANNELS, damping: float = 0.0) -> None:
        super().__init__()
        self.damping = damping
        self.own = nn.Linear(channels, channels)
        self.row, self.column, self.box, self.cell = (nn.Linear(channels, channels, bias=False) for _ in range(4))

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        """One step, `(batch, digit, row, column, channels)`."""
        h = self.own(u)
        # in place, which saves the copies that broadcasting would make
        h += q
        h += self.row(u.mean(dim=3, keepdim=True))
        h += self.column(u.mean(dim=2, keepdim=True))
        h += self.cell(u.mean(dim=1, keepdim=True))
        _boxes(h).add_(self.box(_boxes(u).mean(dim=(3, 5), keepdim=True)))
        return self.damping * u + (1 - self.damping) * torch.tanh(h)


class Read(nn.Module):
    """S: a logit for each digit of each cell."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        """`(batch, 6, 6, 6, channels)` to `(batch, 6, 6, 6)`; the softmax is over the digits."""
        return self.linear(u).squeeze(-1)


def network(
    seed: int,
    *,
    gradient: Callable[..., Tensor] = JFB(),  # noqa: B008
    steps: int = STEPS,
    damping: float = 0.0,
) -> ImplicitNetwork:
    """The untrained network of a seed; R keeps the share `damping` of the old state."""
    torch.manual_seed(seed)
    parts = Look(), Step(damping=damping), Read()
    trained_with = FixedPointIteration(tol=1e-3, max_steps=steps, relative=True)
    return ImplicitNetwork(*parts, solver=trained_with, gradient=gradient, on_unconverged="ignore")


def recorded(path: Path | str) -> ImplicitNetwork:
    """A trained network from its file, `book/records/sudoku.safetensors`."""
    return restored(network(0), path)


def solver(max_steps: int = 512, tol: float = 1e-4) -> FixedPointIteration:
    """What the tests run to rest with."""
    return FixedPointIteration(tol=tol, max_steps=max_steps, relative=True)


def right(logits: Tensor, solved: Tensor) -> Tensor:
    """Which puzzles are right in every cell, `(count,)`."""
    return (logits.argmax(dim=1) + 1 == solved).flatten(1).all(dim=1)


def train(
    network: ImplicitNetwork,
    seed: int,
    given: Tensor,
    solved: Tensor,
    *,
    updates: int = UPDATES,
    segments: int = 1,
    rate: float = 4e-3,
    watch: Callable[[int, float], bool | None] = lambda update, loss: None,
) -> list[float]:
    """Adam at `rate` on batches of 16 drawn from these puzzles, gradients clipped to length 1; returns the losses.

    The learning rate falls to nearly nothing over the last quarter of the updates.

    With more than one segment a batch stays for so many updates, each of which starts from the state that the last one ended with,
    without its graph. `watch(update, loss)` is called before each update and after the last, and ends the training with True.
    """
    generator = torch.Generator().manual_seed(seed)
    d, y, state = torch.empty(0), torch.empty(0), None  # drawn at the first update

    def loss(update: int) -> Tensor:
        nonlocal d, y, state
        if update % segments == 0:
            chosen = torch.randint(len(given), (BATCH,), generator=generator)
            d, y, state = one_hot(given[chosen]), solved[chosen] - 1, None
        T = network.operator(d)
        start = T.zeros() if state is None else state
        # Unrolled needs no solve, and starts at zero
        found = start if isinstance(network.gradient, Unrolled) else network.solver(T, start).u
        u = network.gradient(T, found)
        state = u.detach()
        return cross_entropy(network.S(u), y)

    return fit(
        network,
        loss,
        updates=updates,
        rate=rate,
        factor=lambda update: min(1, max(0.02, 4 * (1 - update / updates))),
        clip=1.0,
        watch=lambda update, value, seconds: watch(update, value),
    )
