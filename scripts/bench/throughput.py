"""Images a second through M and M' in step, and what share of the device's matrix rate that is."""

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from bench.floor import Plain, against_floor
from bench.ours import ready
from bench.worlds import World
from unlearn.train.arithmetic import passes

SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices


def matrix_rate(device: torch.device, arithmetic: str) -> float:
    """Measure the rate of a large matrix product of random numbers, in operations a second."""
    side = SIDE[device.type]
    kind = torch.bfloat16 if arithmetic == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    with passes("tf32" if arithmetic == "tf32" else "float32", device):
        timing = Timer("a @ b", globals={"a": a, "b": b}, num_threads=torch.get_num_threads()).blocked_autorange()
    return 2 * side**3 / timing.median


def operations(world: World, *more: str) -> int:
    """Count the floating-point operations of one step of M and M': matrix products and convolutions, forth and back."""
    prepared = ready(world, 1, *more)
    plain = Plain(prepared)
    points = torch.arange(prepared.config.training.batch_size, device=prepared.device)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(plain.networks[0](plain.inputs[points]), plain.labels[points]).backward()
    return 2 * counter.get_total_flops()


def throughput(world: World, rounds: int, arithmetic: str, *more: str) -> dict[str, Any]:
    """Train M and M' in step beside a plain loop, in one of the arithmetics of training."""
    # whole batches, and M' takes each: as many points as are counted
    whole = ("forget=none", "schedule.drop_last=true")
    overrides = (*more, *whole, f"arithmetic={arithmetic}", "optimizer.momentum=0", "optimizer.weight_decay=0")
    found = against_floor(world, rounds, 10, *overrides)
    device = torch.device(world.device)
    return {
        **found,
        "arithmetic": arithmetic,
        "operations": operations(world, *overrides),
        "matrix_rate": matrix_rate(device, arithmetic),
    }
