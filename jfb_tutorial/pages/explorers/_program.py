"""A trained network as a page can run it: a list of layers, and their numbers, weights rounded to 8 bits.

Batch normalisations stand as they are in eval mode, with their running statistics: a factor and a shift of each channel, which
are merged into the convolution before them if there is one. A weight becomes an integer from −127 to 127 times a scale of its
output channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..._blocks import Latent, Normalise, Residual

MODULES = (
    "3×3 convolutions, linear layers, batch normalisations, leaky ReLUs, residual blocks and a mean over the pixels"
)


class Numbers:
    """The numbers of all layers, one after another: integers of 8 bits, and float32."""

    def __init__(self) -> None:
        self.integers, self.floats = bytearray(), bytearray()

    def keep(self, weight: Tensor | None, *rows: Tensor) -> dict[str, int]:
        """Where a weight, and its scales and the other rows of floats, lie: the first positions of each."""
        # float32 has four bytes, and the script counts numbers
        at = {"integers": len(self.integers), "floats": len(self.floats) // 4}
        if weight is not None:
            weight = weight.cpu()
            flat = weight.flatten(1)
            # a channel of zeros would have the scale 0, and 0/0 for weights
            scale = flat.abs().amax(dim=1).clamp(min=1e-12) / 127
            self.integers += (flat / scale[:, None]).round().to(torch.int8).numpy().tobytes()
            rows = (scale, *rows)
        for row in rows:
            # little-endian, as the script's Float32Array reads them
            self.floats += row.cpu().to(torch.float32).numpy().astype("<f4").tobytes()
        return at


def program(module: nn.Module, numbers: Numbers) -> list[dict]:
    """The layers of a module, as JSON has them.

    Raises:
        ValueError: it has a layer of another kind.
    """
    return [_written(layer, numbers) for layer in _merged(_layers(module))]


def _layers(module: nn.Module) -> list[dict]:
    match module:
        case nn.Sequential():
            return [layer for child in module for layer in _layers(child)]
        case Latent():
            return _layers(module.blocks)
        case nn.Identity() | nn.Flatten():
            return []
        case nn.Conv2d() if (
            module.kernel_size == (3, 3)
            and module.padding == (1, 1)
            and module.stride in ((1, 1), (2, 2))
            and module.groups == 1
            and module.dilation == (1, 1)
        ):
            return [{"op": "conv", "stride": module.stride[0], **_weights(module)}]
        case nn.Linear():
            return [{"op": "linear", **_weights(module)}]
        case nn.LeakyReLU():
            return [{"op": "leaky", "slope": module.negative_slope}]
        case nn.AdaptiveAvgPool2d() if module.output_size in (1, (1, 1)):
            return [{"op": "mean"}]
        case nn.BatchNorm2d(running_mean=Tensor() as mean, running_var=Tensor() as var):
            # (x − mean) / √(var + eps) is factor · x + shift; in double, so that rounding comes once, at the end
            factor = (var.double() + module.eps).rsqrt()
            shift = -mean.double() * factor
            if module.affine:
                factor, shift = factor * module.weight.double(), shift * module.weight.double() + module.bias.double()
            return [{"op": "affine", "factor": factor.detach(), "shift": shift.detach()}]
        case Normalise():
            mean, std = (module.get_buffer(name).flatten().double() for name in ("mean", "std"))
            # the page's pictures are bytes from 0 to 255, where the network's input is in [0, 1]
            return [{"op": "affine", "factor": 1 / (255 * std), "shift": -mean / std}]
        case Residual() if isinstance(module.shortcut, nn.Identity):
            return [{"op": "residual", "branch": _layers(module.branch), "after": _layers(module.after)}]
    raise ValueError(f"a page runs networks of {MODULES}, got {module}")


def _weights(module: nn.Conv2d | nn.Linear) -> dict:
    weight = module.weight.detach().double()
    bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach().double()
    return {"outer": weight.shape[0], "inner": weight.shape[1], "weight": weight, "bias": bias}


def _merged(layers: list[dict]) -> list[dict]:
    """Convolutions with the factors and shifts that follow them."""
    done: list[dict] = []
    for layer in layers:
        if layer["op"] == "residual":
            layer = layer | {"branch": _merged(layer["branch"]), "after": _merged(layer["after"])}
        # one before a convolution stays: its shift would have to stop at the padding, which is 0
        if layer["op"] == "affine" and done and done[-1]["op"] == "conv":
            before, factor = done.pop(), layer["factor"]
            layer = before | {
                "weight": before["weight"] * factor.reshape(-1, 1, 1, 1),
                "bias": before["bias"] * factor + layer["shift"],
            }
        done.append(layer)
    return done


def _written(layer: dict, numbers: Numbers) -> dict:
    match layer["op"]:
        case "conv" | "linear":
            said = {key: value for key, value in layer.items() if key not in ("weight", "bias")}
            return said | numbers.keep(layer["weight"], layer["bias"])
        case "affine":
            at = numbers.keep(None, layer["factor"], layer["shift"])
            return {"op": "affine", "channels": len(layer["factor"]), **at}
        case "residual":
            parts = {part: [_written(each, numbers) for each in layer[part]] for part in ("branch", "after")}
            return layer | parts
    return layer
