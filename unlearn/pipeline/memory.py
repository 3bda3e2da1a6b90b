"""A device whose memory is full is the user's to know in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unlearn.values.errors import UserError, first_line


@contextmanager
def explained(device: torch.device | str) -> Iterator[None]:
    """Say in one line that memory ran out.

    Args:
        device: whose.

    Raises:
        UserError: it did, in the block.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        keys = "training.batch_size, pretraining.batch_size, measure.hessian_chunk or hessian_kept"
        raise UserError(f"device={device}: out of memory ({first_line(error)}); take fewer points: {keys}") from error
