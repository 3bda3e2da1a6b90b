"""What the pipeline may say while it runs."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unlearn.values.measurement import Measurement


class Sink:
    """Takes what a run measures; this one keeps nothing, others derive from it.

    Used as a context it always finishes: with exit code 1 after an exception, else with 0.
    """

    def log(self, measurement: Measurement) -> None:
        """Take one measured step.

        Args:
            measurement: the row that `steps.csv` gets; None is not logged.
        """

    def summary(self, values: Mapping[str, Any]) -> None:
        """Take the run's final values.

        Args:
            values: may be nested; None is left out.
        """

    def figure(self, name: str, path: Path) -> None:
        """Take a drawn figure.

        Args:
            name: the figure's name.
            path: an image file.
        """

    def finish(self, exit_code: int = 0) -> None:
        """Close the sink; a second call does nothing.

        Args:
            exit_code: 0 for a run that came to its end.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(0 if kind is None else 1)
