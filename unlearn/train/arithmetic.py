"""The arithmetic of the passes that train, and of the products of sigma. All else is always float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unlearn.values.errors import UserError, choice

ARITHMETICS = ("float32", "tf32", "bf16")


def check_arithmetic(key: str, name: str, device: torch.device, known: tuple[str, ...] = ARITHMETICS) -> None:
    """Refuse what there is not, or not on this device.

    Args:
        key: of the setting, for the message.
        name: `float32`; `tf32`, float32 numbers multiplied with 10 bits of mantissa (CUDA); `bf16`, convolutions and
            matrix products in bfloat16, weights and updates in float32.
        device: where it is to be used.
        known: what there is to choose from.

    Raises:
        UserError: the name is unknown, or the device has no TF32.
    """
    choice(key, name, known)
    if name == "tf32" and device.type != "cuda":
        rest = " or ".join(each for each in known if each != name)
        raise UserError(f"{key}=tf32: needs a CUDA device, and this run is on {device}; choose {rest}")


def memory_format(name: str, device: torch.device) -> torch.memory_format:
    """Say how a network's convolutions should lie in memory.

    Args:
        name: see `check_arithmetic`.
        device: where they run.

    Returns:
        Channels last for tensor cores; float32 kernels are no quicker with it.
    """
    return torch.channels_last if device.type == "cuda" and name != "float32" else torch.preserve_format


@contextmanager
def passes(name: str, device: torch.device) -> Iterator[None]:
    """Compute forward and backward passes in an arithmetic.

    Args:
        name: see `check_arithmetic`.
        device: where they run.

    Yields:
        Nothing; afterwards everything is as before.
    """
    if name == "bf16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif name == "tf32":
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        try:
            matmul.allow_tf32 = cudnn.allow_tf32 = True
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before
    else:
        yield
