"""The networks of the JFB paper as its code defines them, the phantom-gradient paper's, one for scikit-learn's digits, and one of
ours for a GPU.

All take images in [0, 1], `(batch, channels, side, side)`, and return a logit a class; the normalisation is a buffer of Q,
hence of every checkpoint. Channels, side and classes are those of the data set that a network is named for, unless told
otherwise; numbers of parameters and latent shapes below are for these. Leaky ReLUs have the slope 0.1; weights start as PyTorch starts them. The JFB paper describes its
networks in words (Appendix E), its code defines them, and the numbers of parameters in its tables are those of the code.
Where the two disagree we follow the code, and the docstring says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import nn

from ._blocks import Latent, Normalise, Norms, Residual, Subsample, conv, leaky
from ._checks import check_choice, check_flag, check_integer
from ._multiscale import Head, Inject, Multiscale
from .gradients import JFB, Unrolled
from .network import ImplicitNetwork
from .normalisation import POLICIES, Rescaling
from .solvers import Broyden, FixedPointIteration

__all__ = ["ARCHITECTURES", "NORMS", "build", "cifar10", "digits", "fast_cifar10", "mnist", "multiscale", "svhn"]

NORMS = (*POLICIES, "group", "rescaling")


def mnist(**settings: Any) -> ImplicitNetwork:
    """54,352 parameters, latent 32×9×9, γ = 0.5. Keywords as for `build`.

    The iteration stops at the tolerance of the paper's code, 1e-1; the paper's Appendix E says 1e-4, but the published
    accuracy is the code's. Our residual is the norm of a whole sample, theirs that of the channels of one pixel, which can be
    nine times smaller.
    """
    return build("mnist", **settings)


def svhn(**settings: Any) -> ImplicitNetwork:
    """163,488 parameters, latent 64×8×8, γ = 0.9. Keywords as for `build`.

    The paper's code counts 163,744: 256 of them belong to layers that it makes and never uses, and these are left out. The
    paper says "max pooling"; its code halves the image by strides instead, and so do we.
    """
    return build("svhn", **settings)


def cifar10(**settings: Any) -> ImplicitNetwork:
    """843,430 parameters, latent 35×10×10, γ = 0.5. Keywords as for `build`.

    84.5% of the parameters are in Q and 13.1% in R; the paper says about 70% and 30%. γ damps u where it enters R, not
    what leaves R as in the other two. The frame of 0.449 is added after the normalisation, as in the paper's code.
    """
    return build("cifar10", **settings)


def digits(**settings: Any) -> ImplicitNetwork:
    """33,456 parameters, latent 32×4×4, γ = 0.5: ours, for the 8×8 digits of scikit-learn. Keywords as for `build`.

    The MNIST network made smaller, with one block in R.
    """
    return build("digits", **settings)


def fast_cifar10(**settings: Any) -> ImplicitNetwork:
    """833,626 parameters, latent 96×8×8, γ = 0.5: ours, shaped for a GPU. Keywords as for `build`.

    All widths are multiples of 16. R has the shape of the paper's MNIST network, with three convolutions in its one block.
    """
    return build("fast_cifar10", **settings)


def multiscale(**settings: Any) -> ImplicitNetwork:
    """158,986 parameters, latent a tuple of 24×32×32 and 24×16×16: the phantom-gradient paper's network for CIFAR-10. Keywords as for `build`.

    It is MDEQ-Tiny of the multiscale deep equilibrium models (Bai, Koltun and Kolter 2020), as the phantom-gradient paper's code
    has it, parameter for parameter; that paper says 170K, and its code does not tell which parameters these would be. R has a
    block for each resolution, group normalisation, and no damping, so that nothing makes it a contraction. The data enter at the high
    resolution. In train mode dropout leaves out whole channels of the blocks in R, the same in every step of a forward
    pass. Our weights start as PyTorch starts them, theirs, where they are not normalised, with a standard deviation of 0.01.
    """
    return build("multiscale", **settings)


def build(
    name: str,
    *,
    classes: int = 10,
    channels: int | None = None,
    size: int | None = None,
    batch_norm: bool = True,
    explicit: bool = False,
    norm: str = "fixed-point",
    gamma: float | None = None,
    width: int | None = None,
    weight_norm: bool | None = None,
    solver: Callable | None = None,
    gradient: Callable = JFB(),  # noqa: B008  (frozen)
    on_unconverged: str = "warn",
) -> ImplicitNetwork:
    """A network by its name.

    Args:
        name: one of `ARCHITECTURES`.
        classes: number of logits.
        channels: of the images; those of the network's own data set by default. For another number, the images are normalised with
            the mean and the standard deviation of that data set averaged over its channels, the same for each.
        size: side of the images in pixels, which are square; that of the network's own data set by default. Widths and depths stay,
            the latent grows with the image.
        batch_norm: False leaves the normalisation out of R, the paper's variant for its Jacobian-based method.
        explicit: the explicit twin S(R(0, Q(d))), one step from zero with the same parameters: `gradient=Unrolled(1)`.
        norm: (`multiscale` knows only the default, with its group normalisation in R and batch normalisation elsewhere, and "group")
            which statistics the batch normalisation of R uses, see `normalisation.LatentBatchNorm2d`; or "group", group
            normalisation in R and in Q, under which no sample knows of the others; or, with batch_norm=False, "rescaling", the
            JFB paper's code's own way, see `normalisation.Rescaling`.
        gamma: the factor in R that damps u; the network's own by default. `multiscale` has none: its normalisation would undo it.
        width: channels of each resolution of `multiscale`, at least 3; 24 by default. Other networks have no such setting.
        weight_norm: of `multiscale`: whether the convolutions of R have weight normalisation, as published; True by default.
        solver: how the fixed point is found; as in the paper's code for JFB by default.
        gradient: the backward rule.
        on_unconverged: "warn", "raise" or "ignore" where a sample misses the tolerance, see `ImplicitNetwork`.

    Raises:
        ValueError, TypeError: bad settings; an unknown name is answered with the nearest one, a size that is too small with the
            smallest.
    """
    check_choice("network", name, ARCHITECTURES)
    _check_settings(batch_norm, explicit, norm, gradient)
    own = ARCHITECTURES[name]
    options = _options(name, own, norm, batch_norm, {"gamma": gamma, "width": width, "weight_norm": weight_norm})
    images = _images(name, own, classes, channels, size)
    Q, R, S = own.parts(Norms(norm, batch_norm), images, **options)
    network = ImplicitNetwork(
        Q,
        R,
        S,
        solver=solver or own.solver,
        gradient=Unrolled(1) if explicit else gradient,
        on_unconverged=on_unconverged,
    )
    if norm == "rescaling":
        network.before_solve = Rescaling(options["gamma"])
    return network


def _check_settings(batch_norm: bool, explicit: bool, norm: str, gradient: Callable) -> None:
    """Refuse settings that are none, or that contradict each other."""
    check_flag("batch_norm", batch_norm)
    check_flag("explicit", explicit)
    check_choice("norm", norm, NORMS)
    if explicit and gradient not in (JFB(), Unrolled(1)):
        raise ValueError(f"an explicit network is differentiated as it is; leave gradient out, got {gradient}")
    # the default, POLICIES[0], passes, since it may not have been asked for
    if not batch_norm and norm in POLICIES[1:]:
        raise ValueError(f"norm={norm!r} is about the batch normalisation that batch_norm=False leaves out; choose one")
    if norm == "rescaling" and (batch_norm or explicit):
        raise ValueError(
            "norm='rescaling' is for an implicit network without batch normalisation; add batch_norm=False"
        )


def _options(name: str, own: Architecture, norm: str, batch_norm: bool, options: dict[str, Any]) -> dict[str, Any]:
    """What is set of the options that not every network has; refused where this one has not."""
    if not own.batch_norm and (not batch_norm or norm not in (POLICIES[0], "group")):
        asked = "batch_norm=False" if not batch_norm else f"norm={norm!r}"
        raise ValueError(
            f"{asked} is about batch normalisation in R, where {name!r} has group normalisation; leave it out"
        )
    options = own.options | {option: value for option, value in options.items() if value is not None}
    for option in options.keys() - own.options.keys():
        have = ", ".join(other for other, it in ARCHITECTURES.items() if option in it.options)
        raise ValueError(f"{option} is no setting of {name!r}; leave it out, or choose a network that has it: {have}")
    return options


class Images(NamedTuple):
    """What a network is for: images of `channels` channels and `size` by `size` pixels, of which there are `classes` classes; and the
    mean and the standard deviation of each channel."""

    channels: int
    size: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self) -> Normalise:
        return Normalise(self.mean, self.std, self.size)


def _images(name: str, own: Architecture, classes: int, channels: int | None, size: int | None) -> Images:
    """The images that are asked for, refused if the network cannot take them."""
    classes = check_integer("classes", classes, 1, "give the number of classes of the data")
    mean, std = own.mean, own.std
    channels = len(mean) if channels is None else check_integer("channels", channels, 1, "1 is grey, 3 is colour")
    if channels != len(mean):
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    size = own.size if size is None else check_integer("size", size, 1, "it is the side of a square image in pixels")
    if size < own.smallest:
        raise ValueError(
            f"size must be at least {own.smallest} for {name!r}, got {size}: {own.why}; enlarge the images, or choose a network for "
            f"smaller ones: {', '.join(other for other, it in ARCHITECTURES.items() if it.smallest <= size)}"
        )
    return Images(channels, size, classes, mean, std)


def _mnist(norms: Norms, images: Images, *, gamma: float) -> Parts:
    def block() -> Residual:
        # the code applies the second leaky ReLU twice: slope 0.1² below zero
        return Residual(nn.Sequential(conv(32, 32), leaky(), conv(32, 32), nn.LeakyReLU(0.01)), norms.inner(32))

    Q = nn.Sequential(
        images.normalise(),
        # tuples only put layers that belong together on a line; nn.Sequential gets them one by one
        *(conv(images.channels, 16), norms.outer(16), leaky(), nn.MaxPool2d(3)),  # 16×9×9
        *(conv(16, 32), norms.outer(32), leaky()),
    )
    S = nn.Sequential(
        *(conv(32, 16, padding=0), leaky(), nn.Dropout2d(0.2)),  # 16×7×7
        *(nn.Flatten(), nn.Linear(16 * (images.size // 3 - 2) ** 2, images.classes, bias=False)),
    )
    return Q, Latent(block(), block(), leaving=gamma), S


def _svhn(norms: Norms, images: Images, *, gamma: float) -> Parts:
    def basic(inner: int, outer: int, stride: int) -> Residual:
        branch = nn.Sequential(
            *(conv(inner, outer, stride=stride, bias=False), norms.outer(outer), leaky(), nn.Dropout2d(0.1)),
            *(conv(outer, outer, bias=False), norms.outer(outer), nn.Dropout2d(0.1)),
        )
        return Residual(branch, leaky(), Subsample(outer - inner, stride))

    Q = nn.Sequential(
        images.normalise(),
        *(conv(images.channels, 16, bias=False), norms.outer(16), leaky()),
        *(basic(16, 16, 1), basic(16, 32, 2), basic(32, 64, 2)),  # 64×8×8
    )
    # 0.01 as in the blocks of `_mnist`
    block = Residual(nn.Sequential(conv(64, 64), leaky(), conv(64, 64), nn.LeakyReLU(0.01)), norms.inner(64))
    S = nn.Sequential(
        *(conv(64, 16, padding=0), leaky(), nn.Dropout2d(0.2)),  # 16×6×6
        *(nn.Flatten(), nn.Linear(16 * (_halved(images.size, 2) - 2) ** 2, images.classes, bias=False)),
    )
    return Q, Latent(block, leaving=gamma), S


def _cifar10(norms: Norms, images: Images, *, gamma: float) -> Parts:
    def block(norm: nn.Module, *dropout: nn.Module) -> Residual:
        return Residual(
            nn.Sequential(conv(35, 35), leaky(), *dropout, conv(35, 35)),
            nn.Sequential(leaky(), norm),
        )

    def sixteen() -> Iterator[Residual]:
        return (block(norms.outer(35, affine=False), nn.Dropout2d(0.15)) for _ in range(16))

    Q = nn.Sequential(
        images.normalise(),
        nn.ConstantPad2d(4, 0.449),  # 3×40×40
        *(conv(images.channels, 35, 7, padding_mode="replicate"), leaky()),
        *(*sixteen(), nn.AvgPool2d(2), *sixteen(), nn.AvgPool2d(2)),  # 35×10×10
    )
    R = Latent(*(block(norms.inner(35)) for _ in range(5)), entering=gamma)
    S = nn.Sequential(
        *(conv(35, 35, stride=2), leaky(), nn.Dropout(0.1)),  # 35×5×5
        # + 8: the frame of 4 on either side; // 4: the two poolings; halved by the convolution above
        *(nn.Flatten(), nn.Linear(35 * _halved((images.size + 8) // 4, 1) ** 2, images.classes, bias=False)),
    )
    return Q, R, S


def _digits(norms: Norms, images: Images, *, gamma: float) -> Parts:
    Q = nn.Sequential(
        images.normalise(),
        *(conv(images.channels, 32), norms.outer(32), leaky(), nn.MaxPool2d(2)),  # 32×4×4
        *(conv(32, 32), norms.outer(32), leaky()),
    )
    block = Residual(nn.Sequential(conv(32, 32), leaky(), conv(32, 32), leaky()), norms.inner(32))
    S = nn.Sequential(
        *(conv(32, 16, padding=0), leaky(), nn.Dropout2d(0.2)),  # 16×2×2
        *(nn.Flatten(), nn.Linear(16 * (images.size // 2 - 2) ** 2, images.classes, bias=False)),
    )
    return Q, Latent(block, leaving=gamma), S


def _fast_cifar10(norms: Norms, images: Images, *, gamma: float) -> Parts:
    def down(inner: int, outer: int) -> tuple[nn.Module, ...]:
        return conv(inner, outer, stride=2, bias=False), norms.outer(outer), leaky()

    def block(width: int) -> Residual:
        branch = nn.Sequential(
            *(conv(width, width, bias=False), norms.outer(width), leaky()),
            *(conv(width, width, bias=False), norms.outer(width)),
        )
        return Residual(branch, leaky())

    Q = nn.Sequential(
        images.normalise(),
        *(conv(images.channels, 48, bias=False), norms.outer(48), leaky(), block(48)),  # 48×32×32
        *(*down(48, 96), block(96)),  # 96×16×16
        *(*down(96, 96), block(96)),  # 96×8×8
    )
    branch = nn.Sequential(conv(96, 96), leaky(), conv(96, 96), leaky(), conv(96, 96), leaky())
    R = Latent(Residual(branch, norms.inner(96)), leaving=gamma)
    S = nn.Sequential(
        *(conv(96, 96, stride=2, bias=False), norms.outer(96), leaky()),  # 96×4×4
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, images.classes)),
    )
    return Q, R, S


def _multiscale(norms: Norms, images: Images, *, width: int, weight_norm: bool) -> Parts:
    width = check_integer("width", width, 3, "the head has a third of it; 24 is the published one")
    check_flag("weight_norm", weight_norm)
    Q = nn.Sequential(
        images.normalise(),
        *(conv(images.channels, width, bias=False), norms.outer(width), nn.ReLU()),
        *(conv(width, width, bias=False), norms.outer(width), nn.ReLU()),
        Inject(width),
    )
    return Q, Multiscale(width, weight_norm), Head(width, norms, images.classes)


def _halved(side: int, times: int) -> int:
    """The side that convolutions with stride 2 and a frame of 1 leave of an image, rounded up each time."""
    for _ in range(times):
        side = (side + 1) // 2
    return side


Parts = tuple[nn.Module, nn.Module, nn.Module]


class Architecture(NamedTuple):
    """A network by its name: what makes (Q, R, S) of (norms, images) and its options, these keywords of `build` with their defaults, the
    solver; its own data set's mean and standard deviation, a number a channel, and side; the smallest side that it takes, and why
    not less; whether there can be batch normalisation in R."""

    parts: Callable[..., Parts]
    options: dict[str, Any]
    solver: Callable
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    smallest: int = 1
    why: str = "an image has a pixel"
    batch_norm: bool = True


# mean and standard deviation of each channel, of images in [0, 1]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SVHN = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# the numbers of the phantom-gradient paper's code, whose deviations are others
MDEQ = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CUT = "Q makes the side {} times smaller, and the 3×3 convolution of S, which has no frame, needs 3 pixels of what is left"

ARCHITECTURES: dict[str, Architecture] = {
    "mnist": Architecture(
        _mnist, {"gamma": 0.5}, FixedPointIteration(tol=1e-1, max_steps=50), (0.1307,), (0.3081,), 28, 9, CUT.format(3)
    ),
    "svhn": Architecture(
        _svhn, {"gamma": 0.9}, FixedPointIteration(tol=1e-4, max_steps=200), *SVHN, 32, 9, CUT.format(4)
    ),
    # the paper's code takes ImageNet's numbers for CIFAR-10
    "cifar10": Architecture(_cifar10, {"gamma": 0.5}, FixedPointIteration(tol=1e-1, max_steps=50), *IMAGENET, 32),
    "digits": Architecture(
        _digits, {"gamma": 0.5}, FixedPointIteration(tol=1e-3, max_steps=50), (0.3053,), (0.3761,), 8, 6, CUT.format(2)
    ),
    "fast_cifar10": Architecture(
        _fast_cifar10, {"gamma": 0.5}, FixedPointIteration(tol=1e-2, max_steps=20, relative=True), *CIFAR10, 32
    ),
    "multiscale": Architecture(
        _multiscale,
        {"width": 24, "weight_norm": True},
        Broyden(tol=1e-3, max_steps=18, relative=True),
        *(*MDEQ, 32),
        batch_norm=False,
    ),
}
"""The networks by name."""
