"""Single-gradient unlearning: add the forgotten gradient back, once.

Paper: Thudi et al. 2022, section on single gradient unlearning. Under plain SGD,

    w'' = w_t + eta * m * grad L(w_0, x*)

undoes the first-order part of what the forget set did in m visits. Three deviations, each a setting:

- the reference code takes the gradient at w_0, at w_1 or at w_t, depending on the script; checkpoints make each
  expansion short;
- under momentum mu the effect of a visit at step s is sum_{i=s..t} lr_i mu^(i-s), which tends to eta / (1 - mu). The
  velocity that M coasted with at s, and M' later, is not added back: eta mu^k v after k steps, at a constant rate;
- for points of a batch the removal changes the step by the difference of two gradients (`removal_gradient`).

Of a forget set that is scattered over several batches, the gradients are summed over the batches in which its points
took part for the first time. A visit counts by its share n / b of forgotten points, over the sum of these shares in
that first pass: m is the number of epochs, however the points meet in batches of one size.
"""

from dataclasses import dataclass
from typing import ClassVar

from unlearn.methods.method import Unlearned
from unlearn.train.loop import removal_gradient
from unlearn.train.recording import Trained
from unlearn.values.errors import choice

_RECORD = {
    "initial": frozenset({"initial_gradient"}),
    "first": frozenset({"first_gradient"}),
    "current": frozenset[str](),
    "checkpoint": frozenset({"checkpoint_gradients"}),
}


@dataclass(frozen=True)
class SingleGradient:
    """Single-gradient unlearning.

    Attributes:
        name: for logs.
        gradient_at: `initial` (w_0), `first` (w_1), `current` (w_t) or `checkpoint` (the newest one before each visit).
        correction: `plain`, a step of lr for each visit; `momentum_aware`, the effect that momentum gives it by now.
    """

    name: str
    gradient_at: str
    correction: str
    online: ClassVar[bool] = True

    def __post_init__(self) -> None:
        choice("method.gradient_at", self.gradient_at, tuple(_RECORD))
        choice("method.correction", self.correction, ("plain", "momentum_aware"))

    @property
    def needs(self) -> frozenset[str]:
        """The gradient at the chosen weights."""
        return _RECORD[self.gradient_at]

    def unlearn(self, trained: Trained) -> Unlearned:
        """Add the gradient back.

        Args:
            trained: M and its recording.

        Returns:
            w'' = w_t + (effect of the visits) * gradient.
        """
        record, original = trained.recording, trained.original
        if not record.visit_count:
            return Unlearned(original.weights, original.buffers)
        plain = self.correction == "plain"
        if self.gradient_at == "checkpoint":
            at = record.checkpointed
            assert at is not None  # `needs` asked for it
            return Unlearned(original.weights + (at.plain if plain else at.momentum_aware), original.buffers)
        points = 0
        gradient = record.initial_gradient if self.gradient_at == "initial" else record.first_gradient
        if self.gradient_at == "current":
            gradient = removal_gradient(trained.recipe, original, record.first_pass)
            points = sum(len(batch.indices) + len(batch.kept) for batch in record.first_pass)
        effect = record.plain if plain else record.momentum_aware
        assert gradient is not None  # `needs` asked for it
        return Unlearned(original.weights.add(gradient, alpha=effect), original.buffers, points)
