"""Start from weights that someone else trained. A file is only ever read as tensors; no pickle may run code."""

import pickle
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unlearn.values.errors import UserError

NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net", "weights")
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's
KINDS = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"  # BatchNorm keeps it, but with its default momentum never reads it

# what the two readers were seen to raise on damaged and on foreign files
_UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
)


def load_weights(module: nn.Module, path: str) -> None:
    """Replace all of a module's parameters and buffers, or none where anything is wrong.

    Entries are matched by name where both sides have the same names, else by their order in the state dict, where
    every shape agrees; a safetensors file keeps no order. BatchNorm's `num_batches_tracked` is neither asked for nor
    loaded.

    Args:
        module: receives the values, in its own dtype and on its own device.
        path: `.safetensors`; or `.pt` or `.pth` with a state dict, bare or inside a dictionary.

    Raises:
        UserError: the file is missing, unreadable, wants to run code, holds other entries than the module, or numbers
            that are not finite.
    """
    own = module.state_dict()
    try:
        given = _uncounted(_unwrapped(_state_dict(_read(Path(path).expanduser()))))
        matched = _match(_uncounted(own), given, ordered=not path.lower().endswith(".safetensors"))
        values = {name: _converted(theirs, tensor, own[name]) for name, (theirs, tensor) in matched.items()}
    except UserError as error:
        raise UserError(f"model.weights={path}: {error}") from error
    module.load_state_dict({**own, **values})


def _read(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", ".pt", ".pth"):
        raise UserError("give a file that ends in .safetensors, .pt or .pth")
    if not path.is_file():
        raise UserError("there is no such file")
    try:
        return load_file(path) if suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except _UNREADABLE as error:
        wanted = "a safetensors file" if suffix == ".safetensors" else "a file of plain tensors by torch.save"
        code = "; a pickle that would run code is refused" if isinstance(error, pickle.UnpicklingError) else ""
        raise UserError(f"cannot be read as {wanted} ({type(error).__name__}){code}") from error


def _is_state_dict(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and len(found) > 0
        and all(isinstance(name, str) and isinstance(entry, Tensor) for name, entry in found.items())
    )


def _candidates(found: Any) -> Iterator[Any]:
    yield found
    if isinstance(found, Mapping):
        yield from (found[key] for key in NESTED_UNDER if key in found)
        yield from found.values()
        # a state dict with a few numbers of its training beside the tensors
        yield {name: entry for name, entry in found.items() if isinstance(entry, Tensor)}


def _state_dict(found: Any) -> dict[str, Tensor]:
    for candidate in _candidates(found):
        if _is_state_dict(candidate):
            return dict(candidate)
    raise UserError(f"holds no state dict (tensors by name), bare or under one of {', '.join(NESTED_UNDER)}")


def _unwrapped(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for prefix in WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            return _unwrapped({name.removeprefix(prefix): entry for name, entry in state.items()})
    return state


def _uncounted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: entry for name, entry in state.items() if _kind(name) != COUNTER}


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _match(own: dict[str, Tensor], given: dict[str, Tensor], *, ordered: bool) -> dict[str, tuple[str, Tensor]]:
    """Pair each own name with the entry of the file that belongs to it."""
    if own.keys() == given.keys():
        pairs = {name: name for name in own}
    elif len(own) == len(given) and not ordered:
        other = min(given.keys() - own.keys())
        raise UserError(
            f"has {other!r}, which the model does not, and .safetensors keeps no order to go by; give a .pt"
        )
    elif len(own) == len(given):
        pairs = dict(zip(own, given, strict=True))
    else:
        absent = [f"lacks {name!r}" for name in own if name not in given]
        extra = [f"has {name!r}, which the model does not" for name in given if name not in own]
        raise UserError(f"has {len(given)} entries where the model has {len(own)}; it {(absent + extra)[0]}")
    for name, theirs in pairs.items():
        shape, wanted = tuple(given[theirs].shape), tuple(own[name].shape)
        # a bias in the place of a weight has the right shape in BatchNorm, and is wrong all the same
        if shape != wanted or (_kind(theirs) in KINDS and _kind(theirs) != _kind(name)):
            raise UserError(f"its {theirs!r} of shape {shape} does not fit the model's {name!r} of shape {wanted}")
    return {name: (theirs, given[theirs]) for name, theirs in pairs.items()}


def _converted(name: str, tensor: Tensor, own: Tensor) -> Tensor:
    if tensor.is_complex() or tensor.is_quantized or tensor.is_meta or tensor.layout is not torch.strided:
        raise UserError(f"its {name!r} is not a plain tensor of real numbers")
    if own.is_floating_point() and not tensor.is_floating_point():  # quantised, say: its scale would be lost
        raise UserError(f"its {name!r} holds {tensor.dtype}, not floating-point numbers")
    value = tensor.to(dtype=own.dtype)
    # after the conversion: a large float64 is infinite in float32
    if not value.isfinite().all():
        raise UserError(f"its {name!r} is not finite everywhere")
    return value
