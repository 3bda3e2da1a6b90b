"""What a run computes on."""

import os

import torch
from joblib import cpu_count  # heeds affinity and container limits, as os.cpu_count does not

from unlearn.values.errors import UserError


def pick_device(name: str) -> torch.device:
    """Choose where to compute.

    Args:
        name: `auto` takes CUDA where there is one; otherwise a device of torch's.

    Returns:
        The device.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name}: choose auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: torch sees {torch.cuda.device_count()} CUDA devices here; try device=cpu")
    return device


def available_threads() -> int:
    """Count the threads of a CPU.

    Returns:
        What `OMP_NUM_THREADS` allows, as launchers set it to share cores out; else one a core.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # of nested levels the first
    return int(asked) if asked.isdecimal() and int(asked) else cpu_count()
