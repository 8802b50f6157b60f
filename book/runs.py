"""The runs that the book's chapters read, by data set, and those of chapter 11, which are of several, as `phantom`.

`make records` makes those that are missing.

`python -m jfb_tutorial reproduce DATASET`, or `reproduce phantom`, reads this file.
"""

from jfb_tutorial.gradients import (
    ImplicitDifferentiation,
    NeumannSeries,
    PublishedCG,
    UnrolledPhantom,
)
from jfb_tutorial.solvers import Anderson, Broyden, FixedPointIteration
from jfb_tutorial.training.experiments import Experiment
from jfb_tutorial.training.recipes import recipe

EXACT = ImplicitDifferentiation(tol=1e-4)
FIVE, THREE, TWO, ONE = range(5), range(3), range(2), range(1)


def _digits(label: str, seeds: range = FIVE, *, keeps: str = "", **changes) -> Experiment:
    return Experiment(label, "cpu", recipe("digits", "cpu", **changes), seeds, keeps)


CONVERGED = ImplicitDifferentiation(tol=1e-3)
PUBLISHED = {"rule": PublishedCG(), "norm": "rescaling"}
APPENDIX_E = {
    "lr": 1e-4,
    "solver": FixedPointIteration(tol=1e-4, max_steps=50),
}  # for MNIST; the code has others
OURS = {
    "epochs": 20,
    "lr": 2e-3,
    "schedule": "triangular",
    "crop": 2,
}  # for MNIST; set beforehand, not tuned


# on CIFAR-10 the paper solves the forward problem more tightly where the Jacobian is used
TIGHT = {"batch_norm": False, "solver": FixedPointIteration(tol=1e-4, max_steps=500)}


def _paper(dataset: str, scale: str, **changes) -> tuple[Experiment, ...]:
    """The runs of the JFB paper on a data set: its Tables 1 and 2, its figures of training, and what tells their causes apart."""

    def runs(label: str, seeds: range = ONE, *, keeps: str = "", **more) -> Experiment:
        return Experiment(
            label, scale, recipe(dataset, scale, watch_test=True, **changes, **more), seeds, keeps
        )

    without = TIGHT if dataset == "cifar10" else {"batch_norm": False}
    mnist = dataset == "mnist"

    def kept(name: str) -> str:
        return name if mnist and scale == "cpu" else ""

    short = {"epochs": 1} if scale == "cpu" else {}
    return (
        runs("jfb", THREE, keeps=kept("mnist.safetensors")),
        runs("jfb-no-norm", keeps=kept("mnist-no-norm.safetensors"), **without),
        runs("explicit", THREE, explicit=True),
        runs("jacobian", rule=CONVERGED, **without),
        runs("jacobian-batch-norm", THREE if mnist else ONE, rule=CONVERGED),
        runs("neumann-6", rule=NeumannSeries(6)),
        runs("neumann-11", rule=NeumannSeries(11)),
        # the adjoint solver of the paper's code, with and without the scaling of R that goes with it; Appendix E
        *(
            (
                runs(
                    "jacobian-published",
                    keeps=kept("mnist-published.safetensors"),
                    **PUBLISHED,
                    **without,
                ),
                runs("jacobian-published-free", THREE, rule=PublishedCG(), **short, **without),
                runs("jfb-rescaling", norm="rescaling", **without),
                runs("jfb-appendix-e", **APPENDIX_E, **short),
                runs("jfb-appendix-e-lr", lr=APPENDIX_E["lr"], **short),
                runs("jfb-appendix-e-tol", solver=APPENDIX_E["solver"], **short),
                runs("jfb-criterion", criterion=True),
                runs("jfb-augmented", keeps=kept("mnist-augmented.safetensors"), **OURS),
            )
            if mnist
            else ()
        ),
    )


# chapter 09, on one core: float32, as the tolerances of the paper's code ask for
LARGER = {
    "images": 8000,
    "epochs": 5,
    "held_out": 1000,
    "probe": 16,
    "radius": True,
    "reestimate": 2000,
    "channels_last": True,
}


def _larger() -> tuple[Experiment, ...]:
    """The JFB paper's networks for CIFAR-10 and, prefixed, for SVHN, both on photographs of CIFAR-10; its Table 2 in small."""

    def own(label: str, **of) -> Experiment:
        kept = "cifar10-paper.safetensors" if label == "jfb" else ""
        settings = recipe("cifar10", "cpu", network="cifar10", **LARGER, **of)
        return Experiment(label, "cpu", settings, ONE, kept)

    def svhn(label: str, seeds: range, **of) -> Experiment:
        suffix = {"jfb": "", "jacobian-published": "-published"}.get(label)
        kept = "" if suffix is None else f"cifar10-svhn{suffix}.safetensors"
        settings = recipe("cifar10", "cpu", network="svhn", **LARGER, **of)
        return Experiment(f"svhn-{label}", "cpu", settings, seeds, kept)

    rescaled = {"batch_norm": False, "norm": "rescaling"}
    return (
        svhn("jfb", THREE, compare=True),
        svhn("explicit", THREE, explicit=True),
        svhn("jacobian-batch-norm", THREE, rule=CONVERGED),
        svhn("neumann-6", THREE, rule=NeumannSeries(6)),
        svhn("neumann-11", THREE, rule=NeumannSeries(11)),
        # without batch normalisation T is no contraction to begin with; their code scales it down
        svhn("jacobian", ONE, batch_norm=False, rule=CONVERGED),
        svhn("jacobian-published", ONE, rule=PublishedCG(tol=1e-4, max_steps=200), **rescaled),
        svhn("jacobian-rescaling", ONE, rule=CONVERGED, **rescaled),
        svhn("jfb-rescaling", ONE, **rescaled),
        own("jfb", compare=True),
        own(
            "jacobian-published",
            norm="rescaling",
            rule=PublishedCG(tol=1e-4, max_steps=500),
            **TIGHT,
        ),
        own("jacobian-batch-norm", rule=CONVERGED),
        own("jacobian", rule=CONVERGED, **TIGHT),
        own("jfb-no-norm", **TIGHT),
    )


FAST = {
    "epochs": 18,
    "batch": 250,
    "cutout": 0,
    "held_out": 1000,
    "probe": 16,
    "compile": False,
}  # what one core does in two hours
LONG = {
    "epochs": 24,
    "batch": 250,
    "optimiser": "muon",
    "cutout": 0,
    "held_out": 1000,
    "probe": 16,
    "compile": False,
    "precision": "bfloat16",
    "channels_last": True,
}  # two hours on one core that multiplies in bfloat16
SHORT = {"epochs": 40, "compile": False}  # compiling takes a minute
ON_A_CORE = {"precision": "bfloat16", "channels_last": True, "held_out": 2000}
ON_A_GPU = {"epochs": 30, "held_out": 5000, "probe": 16}
ABLATIONS = {
    "explicit": {"explicit": True},
    # how the iteration is made
    "tol-0.1": {"solver": FixedPointIteration(tol=1e-1, max_steps=20, relative=True)},
    "tol-0.001": {"solver": FixedPointIteration(tol=1e-3, max_steps=20, relative=True)},
    "5-steps": {"solver": FixedPointIteration(tol=1e-2, max_steps=5, relative=True, check_every=0)},
    "every-step": {"norm": "every-step"},
    # how it is trained
    "muon": {"optimiser": "muon"},
    "adamw": {"optimiser": "adamw", "lr": 2e-3, "weight_decay": 5e-2},
    "constant": {"schedule": "constant", "lr": 0.1},
    "plain-images": {"flip": "none", "crop": 0, "cutout": 0},
    "no-average": {"average": 0.0},
    "no-smoothing": {"label_smoothing": 0.0},
    # how it is computed
    "float32": {"precision": "float32"},
}
"""What is taken out of our recipe for CIFAR-10, or replaced, one at a time."""


def _fast(scale: str) -> tuple[Experiment, ...]:
    """The runs of our network on CIFAR-10."""
    base = {"cpu": ON_A_CORE, "full": ON_A_GPU}[scale]

    def ablation(name: str, seeds: range, **changes) -> Experiment:
        return Experiment(
            f"ablation-{name}", scale, recipe("cifar10", scale, **base | changes), seeds
        )

    runs = [ablation("none", THREE)]
    runs += [
        ablation(name, THREE if name == "explicit" else ONE, **changes)
        for name, changes in ABLATIONS.items()
    ]
    if scale == "cpu":
        return (
            Experiment(
                "long-jfb", "cpu", recipe("cifar10", "full", **LONG), ONE, "cifar10.safetensors"
            ),
            Experiment("fast-jfb", "cpu", recipe("cifar10", "full", **FAST), ONE),
            *runs,
        )
    for name, changes in {
        "eager": {"compile": False},
        "channels-first": {"channels_last": False},
    }.items():
        runs.append(ablation(name, ONE, **changes))
    return (
        Experiment(
            "fast-jfb", "full", recipe("cifar10", "full"), THREE, "cifar10-full.safetensors"
        ),
        Experiment("fast-short", "full", recipe("cifar10", "full", **SHORT), THREE),
        Experiment("fast-explicit", "full", recipe("cifar10", "full", explicit=True), THREE),
        *runs,
    )


PHANTOMS = {"upg": UnrolledPhantom, "npg": NeumannSeries}


def _phantoms(steps: tuple[int, ...], dampings: tuple[float, ...]) -> dict[str, dict]:
    """The two phantom gradients with all these steps and dampings, by label; JFB once, which both are at one undamped step."""
    rules = {
        f"{name}-{k}-{damping:g}": {"rule": rule(k, damping)}
        for name, rule in PHANTOMS.items()
        for k in steps
        for damping in dampings
        if (k, damping) != (1, 1)
    }
    return ({"jfb": {}} if 1 in steps and 1 in dampings else {}) | rules


def _phantom(label: str, scale: str, dataset: str, seeds: range = THREE, **changes) -> Experiment:
    """A run of chapter 11: with the norm of J and its spectral radius, after each epoch."""
    return Experiment(
        label, scale, recipe(dataset, scale, radius=True, **changes), seeds, suite="phantom"
    )


def _until(tol: float) -> dict:
    """The Neumann series with as many terms as it takes until what is missing is below `tol` of the gradient that arrived."""
    rule = ImplicitDifferentiation("neumann", tol=tol, max_steps=50, on_failure="warn")
    return {f"until-{tol:g}": {"rule": rule}}


def _sweep() -> tuple[Experiment, ...]:
    """Figure 3 of the phantom-gradient paper on the digits; and the largest factor of chapter 07, where T contracts slowly."""
    until = _until(0.5) | _until(0.1)
    grid = _phantoms((1, 2, 3, 5, 9, 15), (0.5, 0.8, 1.0)) | until
    wide = (
        {"jfb": {}, "exact": {"rule": EXACT}}
        | _phantoms((15,), (1.0,))
        | _phantoms((5,), (0.5,))
        | until
    )
    return (
        *(
            _phantom(f"sweep-{name}", "cpu", "digits", compare=True, **of)
            for name, of in grid.items()
        ),
        *(
            _phantom(f"wide-{name}", "cpu", "digits", compare=True, gamma=3.0, **of)
            for name, of in wide.items()
        ),
    )


CLOTHES = {"images": 10000, "epochs": 5, "lr": 2e-3, "schedule": "triangular", "compare": True}
CLOTHES_ON_A_GPU = {
    "epochs": 20,
    "lr": 2e-3,
    "schedule": "triangular",
    "compare": True,
    "probe": 16,
}


def _clothes(scale: str) -> tuple[Experiment, ...]:
    """Fashion-MNIST, with the network of chapter 08."""
    settings = {"cpu": CLOTHES, "full": CLOTHES_ON_A_GPU}[scale]
    rules = (
        {"jfb": {}, "exact": {"rule": CONVERGED}}
        | _phantoms((5,), (0.5,))
        | _phantoms((9,), (1.0,))
        | _until(0.1)
    )
    return tuple(
        _phantom(f"phantom-{name}", scale, "fashion-mnist", **settings, **of)
        for name, of in rules.items()
    )


def _backward(steps: int) -> dict:
    """The exact rule as far as so many products take it, as published: away from a fixed point there may be no solution."""
    return {
        "rule": ImplicitDifferentiation(
            tol=1e-3, max_steps=steps, per_sample=True, on_failure="warn"
        )
    }


FEW_STEPS = Broyden(tol=1e-3, max_steps=8, relative=True)
HALF_WIDTH = {"epochs": 3, "solver": FEW_STEPS, "channels_last": True, "batch": 50}
# of the code for phantom gradients, whose momentum is not Nesterov's
SGD = {"optimiser": "sgd", "lr": 0.1, "weight_decay": 1e-4}


def _multiscale(scale: str) -> tuple[Experiment, ...]:
    """Table 1 of the phantom-gradient paper, and JFB.

    On a core with the same optimiser for all rules, at half width, with fewer steps and epochs; on a GPU as published.
    """
    full = scale == "full"
    settings = {} if full else HALF_WIDTH
    exact, theirs = _backward(20 if full else 8), SGD if full else {}
    pretrained = {"pretrain": 8 if full else 1, "pretrain_steps": 10 if full else 5}
    rows = {
        "exact": exact | pretrained,
        "exact-no-pretraining": exact,
        "exact-no-dropout": exact | pretrained | {"dropout": False},
        "upg-5-0.5-no-dropout": theirs | {"rule": UnrolledPhantom(5, 0.5), "dropout": False},
        "npg-5-0.5-no-dropout": theirs | {"rule": NeumannSeries(5, 0.5), "dropout": False},
        "upg-9-0.5": theirs | {"rule": UnrolledPhantom(9, 0.5)},
        "jfb-no-dropout": theirs | {"dropout": False},
    }
    if full:
        rows |= {"exact-sgd": exact | pretrained | SGD, "exact-sgd-no-pretraining": exact | SGD}
    return tuple(
        _phantom(
            f"multiscale-{name}",
            scale,
            "cifar10",
            THREE if full else TWO,
            network="multiscale",
            **settings,
            **of,
        )
        for name, of in rows.items()
    )


SUITES: dict[str, tuple[Experiment, ...]] = {
    "digits": (
        # the rules
        _digits("jfb", keeps="digits.safetensors"),
        _digits("exact", rule=EXACT, compare=True),
        _digits("neumann-6", rule=NeumannSeries(6)),
        _digits("neumann-11", rule=NeumannSeries(11)),
        _digits("npg-5-0.5", rule=NeumannSeries(5, 0.5)),
        _digits("upg-5-0.5", rule=UnrolledPhantom(5, 0.5)),
        _digits("explicit", explicit=True),
        # batch normalisation in R
        _digits("jfb-every-step", norm="every-step", reestimate=0),
        _digits("jfb-last-step", norm="last-step", reestimate=0),
        _digits("jfb-fixed-point", reestimate=0),
        _digits("jfb-group", THREE, norm="group"),
        _digits("jfb-no-norm", THREE, batch_norm=False),
        # the factor γ in R
        *(_digits(f"jfb-gamma-{gamma:g}", THREE, gamma=gamma) for gamma in (0.9, 1.5, 3.0)),
        _digits("exact-gamma-1.5", THREE, gamma=1.5, rule=EXACT),
        # the tolerance, relative
        *(
            _digits(f"jfb-tol-{tol:g}", THREE, solver=FixedPointIteration(tol=tol, relative=True))
            for tol in (0.5, 0.1, 0.01)
        ),
        # what chapter 12 is about, followed through training
        _digits("jfb-criterion", THREE, criterion=True, probe=10),
        _digits("jfb-criterion-gamma-3", THREE, criterion=True, probe=10, gamma=3.0),
        # another solver: the paper's open direction
        _digits("jfb-anderson", solver=Anderson(tol=1e-3, max_steps=50)),
    ),
    "mnist": (*_paper("mnist", "cpu"), *_paper("mnist", "full")),
    "svhn": _paper("svhn", "full"),
    "cifar10": (
        *_fast("cpu"),
        *_larger(),
        *_fast("full"),
        *_paper("cifar10", "full", network="cifar10"),
    ),
    # chapter 11, on several data sets. At the scale cpu, on one core with nothing else to do, in minutes, estimated from the runs that
    # were made on two busy ones: "sweep" 45, "wide" 15, Fashion-MNIST 65, the multiscale network 170; together five hours
    "phantom": (
        *_sweep(),
        *_clothes("cpu"),
        *_multiscale("cpu"),
        *_clothes("full"),
        *_multiscale("full"),
    ),
}
