"""What torch's global switches are set to, so that a run gives the same numbers every time."""

import os

import torch
from joblib import cpu_count  # heeds affinity and container limits, as os.cpu_count does not

from unlearn.pipeline.prepare import Prepared
from unlearn.train.hessian import SMALL


def settle(prepared: Prepared) -> None:
    """Ask for the same numbers every time: no TF32, no choice of kernels by timing, a known number of threads.

    Args:
        prepared: gives the size of the network and `threads`.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # of nested levels the first
    available = int(asked) if asked.isdecimal() and int(asked) else cpu_count()
    # small networks lose more by waiting for a second thread than it brings
    small = prepared.network.layout.dim < SMALL
    torch.set_num_threads(prepared.config.threads or (1 if small else available))
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
