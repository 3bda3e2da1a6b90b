"""Without a store a run keeps what it has come to in its own folder, until it is done."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unlearn.store.entries import Slot, key_of
from unlearn.store.partial import read_state, write_state


@dataclass(frozen=True)
class Alone:
    """Nothing is shared; a stage that was stopped, or took long, leaves its state in the run's folder.

    Attributes:
        folder: of the run.
        due: whether the state should be kept now, as `Watch.due` says it.
    """

    folder: Path
    due: Callable[[], bool]

    def get(
        self, stage: str, inputs: Mapping[str, Any], compute: Callable[[Slot], Any], device: torch.device, user: str
    ) -> tuple[Any, bool]:
        """Compute, or read what an earlier start has computed; arguments as for `Store.get`.

        Args:
            stage: such as `pair`.
            inputs: what determines it: a state that was left under other inputs is not gone on with.
            compute: makes the state.
            device: where tensors go.
            user: not looked at.

        Returns:
            The state, and whether it was there already.
        """
        slot = Slot(self.folder, self.folder / f"{stage}-{key_of(inputs)}.pt", inputs)
        whole = slot.partial.with_suffix(".whole.pt")
        state = read_state(whole, device)
        found = state is not None
        if not found:
            state = compute(slot)
            if self.due():
                write_state(whole, state)
                slot.drop_partial()
        return state, found


def clear(folder: Path, stages: Collection[str]) -> None:
    """Remove all states: the run is done.

    Args:
        folder: of the run.
        stages: names of what may lie there.
    """
    for stage in stages:
        for path in folder.glob(f"{stage}-*.pt"):
            path.unlink()
