"""Learning rates as a function of the step."""

import math
from dataclasses import dataclass

from unlearn.values.errors import above, choice

DECAYS = ("constant", "cosine", "step", "linear")


@dataclass(frozen=True)
class LearningRate:
    """The learning rate of every step, known before training starts.

    Attributes:
        base: eta, the rate of the first step.
        decay: `constant`; `cosine`, eta (1 + cos(pi i / T)) / 2 over T steps; `step`, eta divided by 10 at one half and
            again at three quarters of the steps; `linear`, eta (1 - i / T).
        total_steps: T.
    """

    base: float
    decay: str = "constant"
    total_steps: int = 1

    def __post_init__(self) -> None:
        above("lr", self.base, 0)
        choice("decay", self.decay, DECAYS)

    def at(self, step: int) -> float:
        """Give the rate of one step.

        Args:
            step: 0 for the first.

        Returns:
            The learning rate.

        >>> LearningRate(0.1, "linear", 10).at(5)
        0.05
        """
        done = step / max(self.total_steps, 1)
        if self.decay == "cosine":
            return self.base * (1 + math.cos(math.pi * done)) / 2
        if self.decay == "step":
            return self.base * 0.1 ** ((done >= 0.5) + (done >= 0.75))
        if self.decay == "linear":
            return self.base * (1 - done)
        return self.base
