"""What every stage of a run works with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unlearn.pipeline.interrupt import Watch
from unlearn.pipeline.prepare import Prepared
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.store.alone import Alone
from unlearn.store.entries import Slot, Store


@dataclass
class Job:
    """What every stage of a run works with.

    Attributes:
        prepared: the run.
        seconds: the clock.
        watch: tells when to keep the state.
        store: shared entries, or none.
        user: the run's name in the store.
        reused: by stage, whether the store had it.
    """

    prepared: Prepared
    seconds: Stopwatch
    watch: Watch
    store: Store | Alone
    user: str
    reused: dict[str, bool]

    def get(self, stage: str, inputs: dict[str, Any], compute: Callable[[Slot], Any]) -> Any:
        """Take a stage's result from the store, or compute it.

        Args:
            stage: its name.
            inputs: all that determines it.
            compute: makes it.

        Returns:
            The packed state.
        """
        state, self.reused[stage] = self.store.get(stage, inputs, compute, self.prepared.device, self.user)
        return state
