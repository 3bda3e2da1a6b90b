"""The arithmetic of the passes that train. Curvature, errors, methods and accuracies are always float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unlearn.values.errors import UserError, choice

ARITHMETICS = ("float32", "tf32", "bf16")


def check_arithmetic(name: str, device: torch.device) -> None:
    """Refuse what there is not, or not on this device.

    Args:
        name: `float32`; `tf32`, float32 numbers multiplied with 10 bits of mantissa (CUDA); `bf16`, convolutions and
            matrix products in bfloat16, weights and updates in float32.
        device: where training runs.

    Raises:
        UserError: the name is unknown, or the device has no TF32.
    """
    choice("arithmetic", name, ARITHMETICS)
    if name == "tf32" and device.type != "cuda":
        raise UserError(f"arithmetic=tf32: needs a CUDA device, and this run is on {device}; choose float32 or bf16")


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
