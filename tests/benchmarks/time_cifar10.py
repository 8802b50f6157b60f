"""Where the time of a training step on CIFAR-10 goes, and what each way of computing it costs; writes book/timings/cifar10.json.

    python tests/benchmarks/time_cifar10.py [--device cuda] [--rounds N] [--out FILE]

A step is that of chapter 10: the forward pass with its solve, the backward pass and the optimiser's step, at the weights of
book/records/cifar10.safetensors, which it does not change (learning rate 0), on training images. First its parts, one after
the other in every round; then whole steps, one of each kind in every round, in units of the step as it is; TorchDEQ and a
plain loop of the same arithmetic among them; CIFAR-10 must be in $JFB_DATA. On a GPU every part ends with a synchronisation, and the file is
book/timings/cifar10-gpu.json. `make timings` runs it.
"""

import json
import statistics
import time

import torch
from shared import BOOK, parser, write
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from jfb_tutorial import architectures
from jfb_tutorial.gradients import JFB, NeumannSeries
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.timing import interleaved, ratios
from jfb_tutorial.training import batches, checkpoints, data, records
from jfb_tutorial.training.evaluation import as_input
from jfb_tutorial.training.experiments import read_suites
from jfb_tutorial.training.meter import Meter

try:
    import torchdeq
except ImportError:
    torchdeq = None

SOLVER = FixedPointIteration(tol=1e-2, max_steps=20, relative=True)


def sync(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def fastest(function, device, times):
    """Seconds of the fastest of some calls."""
    best = float("inf")
    for _ in range(times):
        begin = time.perf_counter()
        function()
        sync(device)
        best = min(best, time.perf_counter() - begin)
    return best


def machine(device):
    """What it can do at most: multiplying matrices, in operations a second, and copying, in bytes a second."""
    n = 8192 if device.type == "cuda" else 2048
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(n, n, device=device).to(dtype)
        rates[f"matmul_{str(dtype).removeprefix('torch.')}"] = 2 * n**3 / fastest(lambda a=a: a @ a, device, 8)
    x = torch.zeros(2**28, device=device)
    y = torch.zeros_like(x)
    return rates | {"copy": 2 * 4 * x.numel() / fastest(lambda: y.copy_(x), device, 5)}


class Step:
    """A training step, whole or in parts."""

    def __init__(self, images, device, *, kind="ours", precision="bfloat16", channels_last=True, rule=None, **settings):
        self.images, self.device, self.kind, self.bf16 = images, device, kind, precision == "bfloat16"
        solver, compiled = settings.pop("solver", SOLVER), settings.pop("compiled", False)
        explicit = settings.get("explicit", False)
        rule = {} if explicit else {"gradient": rule or JFB()}
        self.network = architectures.fast_cifar10(solver=solver, **rule, **settings)
        file = BOOK / "records" / "cifar10.safetensors"
        checkpoints.restore(self.network, checkpoints.load(file)[0], file.name)
        self.network.to(device).train()
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        if compiled:
            for part in (self.network.Q, self.network.R, self.network.S):
                part.compile()
        self.optimiser = torch.optim.SGD(self.network.parameters(), 0.0, momentum=0.9, nesterov=True)
        if kind == "torchdeq":
            self.deq = torchdeq.get_deq(
                f_solver="fixed_point_iter", f_max_iter=20, f_tol=1e-2, f_stop_mode="rel", grad=1
            )

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def forward(self, d):
        network = self.network
        if self.kind == "ours":
            return network(d)
        q = network.Q(d)
        if self.kind == "torchdeq":
            found, info = self.deq(lambda u: network.R(u, q).to(q.dtype), torch.zeros_like(q))
            self.count = int(info["nstep"].max())
            return network.S(found[-1])
        with torch.no_grad():
            u = torch.zeros_like(q)
            for self.count in range(1, 21):
                v = network.R(u, q).to(q.dtype)
                residual = torch.linalg.vector_norm((v.float() - u.float()).flatten(1), dim=1)
                u = v
                if bool((residual <= 1e-2 * torch.linalg.vector_norm(v.float().flatten(1), dim=1)).all()):
                    break
        return network.S(network.R(u, q))

    def __call__(self):
        self.optimiser.zero_grad()
        with self.autocast():
            loss = F.cross_entropy(self.forward(as_input(self.images.images, self.network)), self.images.labels)
        loss.backward()
        self.optimiser.step()
        sync(self.device)

    def in_parts(self):
        """Seconds of each part of one step."""
        network, clock, seconds = self.network, [time.perf_counter()], {}

        def done(name):
            sync(self.device)
            clock.append(time.perf_counter())
            seconds[name] = clock[-1] - clock[-2]

        index = torch.randperm(len(self.images), device=self.device)
        augmentation = batches.Augmentation("alternate", 4, "reflect", 8)
        draws = torch.rand(len(self.images), 8, device=self.device)
        mean = torch.full((3,), 120, dtype=torch.uint8, device=self.device)
        sync(self.device)
        clock[:] = [time.perf_counter()]
        d = as_input(augmentation(self.images.images[index], draws, mean), network)
        labels = self.images.labels[index]
        done("augmentation")
        self.optimiser.zero_grad()
        with self.autocast():
            q = network.Q(d)
            done("Q")
            with torch.no_grad():
                network.last = network.solver(lambda u: network.R(u, q), torch.zeros_like(q))
            done("iteration")
            u = network.gradient(lambda u: network.R(u, q), network.last.u)
            done("step with gradient")
            logits = network.S(u)
            each = F.cross_entropy(logits, labels, reduction="sum")
            done("S and loss")
        (each / len(labels)).backward()
        done("backward")
        self.optimiser.step()
        done("optimiser")
        Meter(1).add(each, logits, labels, network)
        done("bookkeeping")
        return seconds

    def evaluations(self):
        """Evaluations of T in the iteration of the latest step."""
        if self.kind != "ours":
            return self.count
        return None if self.network.last is None else int(self.network.last.steps.max())


def operations(step, device):
    """Floating point operations of one image, by PyTorch's own counter: a multiplication and an addition are two."""
    network = step.network
    count = len(step.images)

    def of(function):
        with FlopCounterMode(display=False) as counter:
            made = function()
        return made, counter.get_total_flops() / count

    q, first = of(lambda: network.Q(as_input(step.images.images, network)))
    u, each = of(lambda: network.R(torch.zeros_like(q), q))
    logits, last = of(lambda: network.S(u))
    _, backward = of(lambda: logits.sum().backward())
    return {"Q": first, "R": each, "S": last, "backward": backward}


def the_same(kinds, names):
    """The gradients of steps that do the same arithmetic agree: their smallest cosine with the first's."""
    gradients = []
    for name in names:
        kinds[name]()
        flat = [p.grad.float().flatten() for p in kinds[name].network.parameters()]
        gradients.append(torch.cat(flat))
    cosine = min(F.cosine_similarity(gradients[0], g, dim=0).item() for g in gradients)
    assert cosine > 0.99, f"the gradients of {', '.join(names)} differ: cosine {cosine}"
    return cosine


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--rounds", type=int, default=12)
    arguments.add_argument("--batch", type=int)
    arguments.add_argument("--no-compile", action="store_true", help="leave the compiled step out")
    options = arguments.parse_args()
    device = torch.device(options.device)
    gpu = device.type == "cuda"
    torch.set_num_threads(1)
    if gpu:
        torch.set_float32_matmul_precision("high")  # TF32, as convolutions in float32 have it by default
    size = options.batch or (512 if gpu else 250)
    everything = data.load("cifar10")
    images = everything[torch.randperm(len(everything), generator=batches.generator(0))[:size]].to(device)
    ours = Step(images, device)
    ours()
    steps = ours.evaluations()
    known = {each.label: each.recipe for each in read_suites(BOOK / "runs.py")["cifar10"] if each.scale == "cpu"}
    kinds = {
        "ours": ours,
        "by hand": Step(images, device, kind="by hand"),
        **({"torchdeq": Step(images, device, kind="torchdeq")} if torchdeq else {}),
        "explicit": Step(images, device, explicit=True),
        "tol-0.1": Step(images, device, solver=known["ablation-tol-0.1"].solver),
        "tol-0.001": Step(images, device, solver=known["ablation-tol-0.001"].solver),
        "no-checks": Step(
            images, device, solver=FixedPointIteration(tol=1e-2, max_steps=steps, relative=True, check_every=0)
        ),
        "neumann-6": Step(images, device, rule=NeumannSeries(6)),
        "float32": Step(images, device, precision="float32"),
        "channels-first": Step(images, device, channels_last=False),
    }
    same = the_same(kinds, [name for name in ("ours", "by hand", "torchdeq") if name in kinds])
    if not options.no_compile:
        kinds["compiled"] = Step(images, device, compiled=True)
    result = {"cosine_with_peers": same, "machine": machine(device), "operations_an_image": operations(ours, device)}
    for _ in range(2):
        ours.in_parts()
    parts = [ours.in_parts() for _ in range(options.rounds)]
    result["milliseconds"] = {name: 1e3 * statistics.median(each[name] for each in parts) for name in parts[0]}
    seconds = interleaved(kinds, options.rounds)
    result["milliseconds_of_a_step"] = 1e3 * statistics.median(seconds["ours"])
    result["ratio"] = ratios(seconds, "ours")
    result["evaluations"] = {name: step.evaluations() for name, step in kinds.items()}
    config = {
        "rounds": options.rounds,
        "threads": 1,
        "batch": size,
        "dtype": "bfloat16",
        "memory": "channels_last",
        "tf32": gpu,
    }
    write(options.out, "cifar10-gpu" if gpu else "cifar10", config, result, records.provenance(device))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
