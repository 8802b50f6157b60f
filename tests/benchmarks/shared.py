"""What the benchmarks share: random matrices of a given size, a small layer made of one, and the file that a timing is written to."""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from jfb_tutorial.training import checkpoints

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


def write_network(name: str, network: nn.Module, made_by: str) -> None:
    """Write a network that a page carries, its weights rounded to 16 bits, to book/records/NAME.safetensors."""
    tensors = {key: tensor.half() for key, tensor in network.state_dict().items()}
    path = BOOK / "records" / f"{name}.safetensors"
    there = checkpoints.load(path)[0] if path.exists() else {}
    # the order of the tensors in a file may change, and with it the file of the same network
    if tensors.keys() != there.keys() or any(not torch.equal(there[key], tensors[key]) for key in tensors):
        checkpoints.save(path, tensors, {"made_by": made_by})
