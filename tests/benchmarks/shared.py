"""What the benchmarks share: random matrices of a given size, a small layer made of one, a measure of J, and the file of a timing."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn import functional as F

from jfb_tutorial import theory
from jfb_tutorial.training import checkpoints, data
from jfb_tutorial.training.evaluation import as_input

BOOK = Path(__file__).resolve().parents[2] / "book"
sys.path.insert(0, str(BOOK / "_ext"))
from execute import provenance  # noqa: E402


def matrix(kind: str, n: int, size: float, *, generator: torch.Generator | None = None, dtype=torch.float32) -> Tensor:
    """A random n × n matrix of 2-norm `size`.

    `kind` is "gaussian", "symmetric", "orthogonal" (times `size`), or "radius": Gaussian with the *spectral radius* `size`, and
    hence a larger norm.
    """
    W = torch.randn(n, n, generator=generator, dtype=dtype)
    if kind == "symmetric":
        W = W + W.T
    if kind == "orthogonal":
        W = torch.linalg.qr(W)[0]
    return size * W / (torch.linalg.eigvals(W).abs().max() if kind == "radius" else torch.linalg.matrix_norm(W, 2))


class TanhLayer(nn.Module):
    """tanh(W u + q), samples in rows; W is the only parameter."""

    def __init__(self, W: Tensor) -> None:
        super().__init__()
        self.W = nn.Parameter(W)

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        return torch.tanh(u @ self.W.T + q)


def one_sided(T: Callable[[Tensor], Tensor], u: Tensor, tol: float = 1e-4) -> float:
    """The largest eigenvalue of the symmetric part of J at `u`, to a relative `tol`."""
    apply, transposed = theory.jacobian_products(T, u)

    def product(x: np.ndarray) -> np.ndarray:
        w = torch.as_tensor(x.reshape(u.shape), dtype=u.dtype)
        return ((apply(w) + transposed(w)) / 2).flatten().numpy()

    n = u.numel()
    # a start of its own: ARPACK's differs from call to call
    start = np.random.default_rng(0).standard_normal(n)
    operator = LinearOperator((n, n), matvec=product, dtype="float64")
    return float(eigsh(operator, k=1, which="LA", v0=start, tol=tol, return_eigenvectors=False)[0])


def repeated_step(network: nn.Module, images: data.Images, batch: int) -> Callable[[], None]:
    """A function that takes a training step each time it is called, with the next batch, and leaves all weights as they are."""
    # those of R anew after each: some networks scale them down in every step
    weights = [parameter.detach().clone() for parameter in network.R.parameters()]
    optimiser = torch.optim.Adam(network.parameters(), lr=0.0)
    numbers = count()

    def step() -> None:
        begin = next(numbers) * batch % (len(images) - batch)
        part = images[begin : begin + batch]
        optimiser.zero_grad()
        F.cross_entropy(network(as_input(part.images, network)), part.labels).backward()
        optimiser.step()
        with torch.no_grad():
            for parameter, weight in zip(network.R.parameters(), weights, strict=True):
                parameter.copy_(weight)

    return step


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every timing has."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, help="the file to write; by default that in book/timings")
    return options


def write(path: Path | None, name: str, config: dict, result: dict, about: dict | None = None) -> None:
    """Write a timing with what it was measured on: to `path`, or to book/timings/NAME.json."""
    path = path or BOOK / "timings" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    timing = {"config": config, **(about or provenance()), "result": result}
    path.write_text(json.dumps(timing, indent=1, ensure_ascii=False) + "\n")


def written(path: Path | None, name: str) -> dict:
    """The results that the file of a timing holds by now, which another part may have been measured into beside this one."""
    path = path or BOOK / "timings" / f"{name}.json"
    return json.loads(path.read_text())["result"] if path.exists() else {}


def has(rows: list[dict], **values: Any) -> bool:
    """Whether one of these rows has these values."""
    return any(all(row.get(key) == value for key, value in values.items()) for row in rows)


@dataclass(frozen=True)
class Keep:
    """The rows of a part, in the file of a timing beside what it has of other parts; to be called with them.

    A subclass gives the `name` of the timing and its `config`.
    """

    name: ClassVar[str]
    arguments: argparse.Namespace
    part: str

    @property
    def config(self) -> dict:
        raise NotImplementedError

    def __call__(self, rows: list) -> None:
        # read anew: another part may be measured beside this one
        write(self.arguments.out, self.name, self.config, self._results() | {self.part: rows})

    def rows(self, part: str | None = None) -> list:
        return self._results().get(part or self.part, [])

    def has(self, **values: Any) -> bool:
        """Whether the part has a row with these values."""
        return has(self.rows(), **values)

    def _results(self) -> dict:
        return written(self.arguments.out, self.name)


def write_network(name: str, network: nn.Module, made_by: str) -> None:
    """Write a network that a page carries, its weights rounded to 16 bits, to book/records/NAME.safetensors."""
    tensors = {key: tensor.half() for key, tensor in network.state_dict().items()}
    path = BOOK / "records" / f"{name}.safetensors"
    there = checkpoints.load(path)[0] if path.exists() else {}
    # the order of the tensors in a file may change, and with it the file of the same network
    if tensors.keys() != there.keys() or any(not torch.equal(there[key], tensors[key]) for key in tensors):
        checkpoints.save(path, tensors, {"made_by": made_by})
