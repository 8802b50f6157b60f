"""An accelerator that is not there: tensors of a device of their own, computed on the CPU, which counts what a GPU would wait for.

PyTorch reserves one device, PrivateUse1, for backends from outside, and lets one be written in Python. Here a tensor of the
device "fake" holds a tensor of the CPU, and `Accelerator`, while it is open, computes each operation there. So the values are real,
what depends on them goes the way that it would go, and a result can be compared with the CPU's. What would fail on a GPU fails:
operations on tensors of both devices, NumPy's view of a tensor of the device. What would make the CPU wait is counted: reads of a
number, copies in either direction, operations whose shapes depend on values.

Registering the device is for the whole process and cannot be undone; `DEVICE` costs the other tests nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

NAME = "fake"
ROOT = Path(__file__).resolve().parent.parent

READS = {"_local_scalar_dense", "equal", "is_nonzero"}
"""Each makes the CPU wait for one number."""
SHAPES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
"""Their result's shape depends on values, so that the CPU has to read it."""
CHECKED = {"_linalg_check_errors", "_linalg_eigh", "_linalg_eigvals", "linalg_eig", "_linalg_svd", "linalg_lstsq"}
"""These read whether they succeeded; what only looks at its own `info` when it is asked to, such as solve_ex, does not."""
MOVES = {"_to_copy", "copy_"}
"""What may see tensors of both devices."""


class Missing(RuntimeError):
    """This PyTorch has not, or no longer, the private interfaces that a device written in Python needs."""


def register() -> None:
    """Make "fake" the name of a device, once in a process.

    Raises:
        Missing: this PyTorch cannot.
    """
    if hasattr(torch, NAME):
        return
    try:
        backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    except AttributeError as error:
        raise Missing(f"torch {torch.__version__} has no Python backends: {error}") from error
    _register_autocast()


LIBRARIES: list[torch.library.Library] = []  # what they have registered ends with them


def _register_autocast() -> None:
    """Autocast on the device: these operations in 16 bits, all others as they are."""
    everything, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    LIBRARIES.extend((everything, some))
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in ("conv2d", "linear", "matmul", "mm", "addmm", "bmm"):
        some.impl(
            name, partial(_in_16_bits, getattr(torch, name, None) or getattr(functional, name)), "AutocastPrivateUse1"
        )


def _in_16_bits(operation, *args, **kwargs):
    dtype = torch.get_autocast_dtype(NAME)
    with torch.autocast(NAME, enabled=False):
        return operation(*tree_map_only(Tensor, lambda x: x.to(dtype), args), **kwargs)


class _Module(getattr(backend_registration, "_DummyBackendModule", object)):  # type: ignore[misc]
    """`torch.fake`, as far as PyTorch asks for it."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    # what `fork_rng` puts back, in files that come after in the same process too; the device draws on the CPU
    def get_rng_state(self, device: int = 0) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: int = 0) -> None:
        pass


class FakeTensor(Tensor):
    """A tensor that says it is on the device, and holds its values on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor):
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.autograd.grad and all(isinstance(x, FakeTensor) for x in args[0]):
            # for tensors of its own class autograd looks whether they are where the outputs are; for others it may abort
            _refuse_mixture(function.__name__, _tensors((kwargs or {}).get("grad_outputs")))
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **(kwargs or {}))
        if function == Tensor.data.__set__:  # type: ignore[attr-defined]
            # in C++ the two tensors now share what they hold; here it is an attribute
            args[0].held = args[1].held
        return result

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):  # type: ignore[override]
        if function is torch.ops.aten._has_compatible_shallow_copy_type.default:
            return True  # asked by `x.data = y`, within the accelerator too
        raise RuntimeError(f"{function} on the device while no Accelerator is open")

    def untyped_storage(self):
        # its own has no address by which what is saved for backward could be told apart
        return self.held.untyped_storage()

    # what PyTorch does for tensors of its own class only

    def tolist(self):
        return self.cpu().tolist()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec)


class Accelerator(TorchDispatchMode):
    """While it is open, "fake" is a device.

    Attributes:
        waits: how often what the CPU would have waited for the device, by the operation.
        places: the same by the line of this repository that did it.
    """

    def __init__(self) -> None:
        super().__init__()
        register()
        self.waits: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.counting = True

    def __enter__(self):
        # torch.tensor(…, device=…) is then made on the CPU and moved here, where else it would look for a device in C++
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(self._lifted)
        return super().__exit__(*error)

    def clear(self) -> None:
        """Count from here."""
        self.waits.clear()
        self.places.clear()
        self.counting = True

    def pause(self) -> None:
        """Count no further, until `clear`."""
        self.counting = False

    @property
    def reads(self) -> int:
        """All waits but uploads."""
        return sum(count for name, count in self.waits.items() if name != "upload")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = _tensors((args, kwargs))
        mine = [x for x in tensors if isinstance(x, FakeTensor)]
        device = kwargs.get("device")
        asked = None if device is None else torch.device(device).type
        if not mine and asked != NAME:
            return function(*args, **kwargs)
        name = function._schema.name.removeprefix("aten::")
        self._note(name, args, tensors, mine, asked)
        if name not in MOVES:
            _refuse_mixture(function, tensors)
        return self._compute(function, name, args, kwargs, asked, bool(mine))

    def _compute(self, function, name: str, args, kwargs, asked: str | None, from_mine: bool):
        """The operation on the CPU; what it returns is on the device, unless it is to go elsewhere."""
        if asked == NAME:
            kwargs["device"] = torch.device("cpu")
        if name == "_to_copy" and asked == "cpu" and from_mine:
            return function(*_held(args), **_held(kwargs))
        result = function(*_held(args), **_held(kwargs))
        if name == "copy_" and not isinstance(args[0], FakeTensor):
            return args[0]
        # what writes into an argument returns that argument, as Python object too
        owners = {id(x.held): x for x in tree_flatten((args, kwargs))[0] if isinstance(x, FakeTensor)}
        result = tree_map_only(Tensor, lambda x: owners[id(x)] if id(x) in owners else FakeTensor(x), result)
        for own in owners.values():
            if own.shape != own.held.shape:  # squeeze_() and the like
                own.data = FakeTensor(own.held)
        return result

    def _note(self, name: str, args, tensors: list[Tensor], mine: list[Any], asked: str | None) -> None:
        wait = None
        if name in READS | SHAPES | CHECKED:
            wait = name
        elif name in ("index", "index_put_", "_index_put_impl_") and _has_mask(args[1]):
            wait = "index by a mask"
        elif name == "_to_copy" and asked is not None and asked != args[0].device.type:
            wait = "download" if asked == "cpu" else "upload"
        elif name == "copy_" and args[0].device != args[1].device:
            wait = "download" if isinstance(args[1], FakeTensor) else "upload"
        if wait and self.counting:
            self.waits[wait] += 1
            self.places[f"{_place()} {wait}"] += 1


def _tensors(tree) -> list[Tensor]:
    return [x for x in tree_flatten(tree)[0] if isinstance(x, Tensor)]


def _held(tree):
    return tree_map_only(FakeTensor, lambda x: x.held, tree)


def _has_mask(indices) -> bool:
    return any(isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in indices)


def _refuse_mixture(function, tensors: list[Tensor]) -> None:
    """As CUDA does: a number of the CPU may stand beside tensors of the device, and nothing else."""
    if any(not isinstance(x, FakeTensor) and x.ndim for x in tensors):
        raise RuntimeError(f"{function} expects all tensors on the same device, got {[str(x.device) for x in tensors]}")


def _place() -> str:
    """The innermost line of the package that is under way."""
    frame: FrameType | None = sys._getframe()
    while frame and "/jfb_tutorial/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}" if frame else "elsewhere"
