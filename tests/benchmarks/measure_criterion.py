"""What the theorems ask of a network and what the exact criterion says, on test images; writes book/timings/criterion.json.

    python tests/benchmarks/measure_criterion.py [NETWORK …] [--out FILE]

For each of the book's trained networks, and for one that is not trained: ‖J‖, the spectral radius, the largest eigenvalue of the
symmetric part of J, κ of MᵀM and the numerical abscissa in its inner product on two test images, the criterion on ten, and on
batches of growing size. Networks of MNIST and CIFAR-10 need their data in $JFB_DATA; what the file has of others stays. Chapter 12 reads it.
"""

import time

import torch
from shared import BOOK, one_sided, parser, write, written

from jfb_tutorial import architectures, theory
from jfb_tutorial.pages.certificates import abscissa
from jfb_tutorial.theory.linearised import partition, rows, solved
from jfb_tutorial.training import checkpoints, data
from jfb_tutorial.training.evaluation import as_input

NETWORKS = {
    "digits": ("digits", "digits.safetensors"),
    "digits, untrained": ("digits", ""),
    "mnist": ("mnist", "mnist.safetensors"),
    "mnist, augmented": ("mnist", "mnist-augmented.safetensors"),
    "mnist, without batch norm": ("mnist", "mnist-no-norm.safetensors"),
    "mnist, as published": ("mnist", "mnist-published.safetensors"),
    "mnist, untrained": ("mnist", ""),
    "cifar10": ("cifar10", "cifar10.safetensors"),
}
BATCHES = {"digits": (1, 2, 5, 10, 20, 40), "mnist": (1, 2, 5, 10), "cifar10": (1, 2, 5)}
DENSE = 3000
"""Unknowns up to which κ and the numerical abscissa are measured: they need ∂T/∂θ as a matrix."""


def load(dataset: str, file: str):
    if file:
        return checkpoints.load_network(BOOK / "records" / file).double().eval()
    torch.manual_seed(0)
    return getattr(architectures, dataset)().double().eval()


def test_images(dataset: str, network) -> torch.Tensor:
    """Forty test images, as the network takes them: the first of each class, the second of each, and so on."""
    images = data.load(dataset, "test")
    chosen = [int((images.labels == label).nonzero()[k]) for k in range(4) for label in range(10)]
    return as_input(images.images[chosen], network)


def linear(network, d: torch.Tensor) -> dict:
    """What the worst-case conditions ask, at the fixed point of one image."""
    for parameter in network.parameters():
        parameter.requires_grad_()
    T = network.operator(d)
    u = solved(T, T.zeros()).requires_grad_()
    n = u.numel()
    row = {"norm": theory.contraction_factor(T, u, tol=1e-4), "radius": theory.spectral_radius(T, u, tol=1e-4 * 1.01)}
    row["symmetric"] = one_sided(T, u)
    if n > DENSE:
        return row
    v, basis = T(u), torch.eye(n, dtype=u.dtype)
    J, M = rows(v, [u], basis), rows(v, partition(network)[1], basis)
    G = M @ M.T
    sizes = torch.linalg.eigvalsh(G)
    row["kappa"] = (sizes[-1] / sizes[0]).item()
    return row | {"abscissa": abscissa(J, G).item()}


def measure(name: str) -> dict:
    dataset, file = NETWORKS[name]
    network = load(dataset, file)
    images = test_images(dataset, network)
    result: dict = {"unknowns": None, "images": [], "batches": []}
    result["unknowns"] = network.operator(images[:1]).zeros().numel()
    for label in range(10):
        row: dict = {"label": label, "criterion": theory.criterion(network, images[label : label + 1]).smallest}
        if label < 2:
            row |= linear(network, images[label : label + 1])
        result["images"].append(row)
    for size in BATCHES[dataset]:
        result["batches"].append({"size": size, "criterion": theory.criterion(network, images[:size]).smallest})
    return result


def main() -> None:
    options = parser(__doc__)
    options.add_argument("networks", nargs="*", help="which; all without")
    arguments = options.parse_args()
    results = written(arguments.out, "criterion")
    torch.set_num_threads(1)
    for name in arguments.networks or NETWORKS:
        begin = time.perf_counter()
        results[name] = measure(name)
        images = results[name]["images"]
        print(name, {k: round(v, 4) for k, v in images[0].items()}, min(i["criterion"] for i in images))
        print("   ", results[name]["batches"], f"{time.perf_counter() - begin:.0f} s", flush=True)
        write(arguments.out, "criterion", {"threads": 1, "dtype": "float64"}, results)


if __name__ == "__main__":
    main()
