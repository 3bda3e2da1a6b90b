"""What torch's global switches are set to, so that a run gives the same numbers every time."""

import torch

from unlearn.pipeline.device import available_threads
from unlearn.pipeline.prepare import Prepared
from unlearn.train.hessian import SMALL


def settle(prepared: Prepared) -> None:
    """Ask for the same numbers every time: no TF32, no choice of kernels by timing, a known number of threads.

    Args:
        prepared: gives the size of the network and `threads`.
    """
    # small networks lose more by waiting for a second thread than it brings
    small = prepared.network.layout.dim < SMALL
    torch.set_num_threads(prepared.config.threads or (1 if small else available_threads()))
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
