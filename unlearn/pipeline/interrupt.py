"""When to keep the state of a run: now and then, and when somebody asks it to stop."""

import logging
import signal
import threading
import time
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Self

logger = logging.getLogger(__name__)
# Slurm tells of its time limit and of preemption by these, submitit by the last
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(SystemExit):
    """A run was asked to stop and has kept its state. Its exit code is 128 + the signal's number, as shells have it."""


@dataclass
class Watch:
    """Listens for signals while it is used as a context; a second signal of a kind acts as if nobody listened.

    Attributes:
        minutes: between two times that `due` is true.
        asked: the signal that asked to stop, or None.
        since: when the state was last kept.
    """

    minutes: float
    asked: int | None = None
    since: float = field(default_factory=time.monotonic)
    _before: dict[int, Any] = field(default_factory=dict)

    def due(self) -> bool:
        """Say whether the state should be kept now."""
        return self.asked is not None or time.monotonic() - self.since >= 60 * self.minutes

    def kept(self, where: str) -> None:
        """Note that the state is on disk, and stop if that was asked for.

        Args:
            where: how far the run is, in words.

        Raises:
            Interrupted: a signal came.
        """
        self.since = time.monotonic()
        self.stop_if_asked(f"stopped {where}; the state is kept: the same command goes on from there")

    def stop_if_asked(self, message: str) -> None:
        """Stop if that was asked for. Nothing may be lost by it.

        Args:
            message: what the log says then.

        Raises:
            Interrupted: a signal came.
        """
        if self.asked is None:
            return
        logger.warning("%s", message)
        before = self._before.get(self.asked)
        if callable(before) and before is not signal.default_int_handler:
            before(self.asked, None)  # such as submitit's, which queues the job again
        raise Interrupted(128 + self.asked)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        logger.warning(
            "asked to stop (%s): at the next step, with the state kept, or at the end of this run",
            signal.Signals(number).name,
        )
        if self.asked is None:  # where Slurm's SIGTERM follows submitit's SIGUSR2, the latter queues the job again
            self.asked = number
        if (before := self._before.get(number)) is not None:
            signal.signal(number, before)

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)
