"""Parts of a computation, each in a process of its own."""

import multiprocessing
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from unlearn.values.errors import UserError

Part = TypeVar("Part")
Result = TypeVar("Result")


def safe() -> bool:
    """Say whether this process may be forked: on Linux, without an accelerator, whose autograd threads forks lack."""
    return sys.platform == "linux" and not torch.accelerator.is_available()


def forked(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Do the same work on each part, at the same time.

    Processes are forked, as those of torch's own data loaders are: they start at once and see what a part holds without
    a copy, where an executor would pickle it. Each computes on one thread, and ends with the one that started it.

    Args:
        work: its results are pickled.
        parts: one for each process.

    Returns:
        What the work gave for each.

    Raises:
        UserError: a process was killed.
        Exception: what the work raised, of the first part that did.
    """
    context = multiprocessing.get_context("fork")
    children = []
    try:
        for part in parts:
            end, other = context.Pipe(duplex=False)
            with other:
                child = context.Process(target=_child, args=(work, part, other), daemon=True)
                child.start()
            children.append((child, end))
        return [_received(end) for _, end in children]
    finally:
        for child, end in children:
            child.terminate()
            child.join()
            end.close()


def _received(end: Connection) -> Any:
    try:
        # bytes: a connection's own pickler would leave tensors in shared memory, of which containers have little
        result, error = pickle.loads(end.recv_bytes())
    except EOFError:
        raise UserError("a process of this stack was killed; where memory ran out, fewer points a stack help") from None
    if error is not None:
        raise error
    return result


def _child(work: Callable[[Part], Result], part: Part, end: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # of the terminal: the parent says what there is to say
    threading.Thread(target=_until_orphaned, daemon=True).start()
    torch.set_num_threads(1)
    try:
        found = pickle.dumps((work(part), None))
    except Exception as error:  # sent home, and raised there
        error.add_note(traceback.format_exc())
        found = pickle.dumps((None, error))
    end.send_bytes(found)


def _until_orphaned() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    signal.raise_signal(signal.SIGTERM)
