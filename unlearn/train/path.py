"""The curvature that a removal met on its way: of the batches that M' trained on too, where M was when it saw them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from sys import float_info

import torch
from torch import Tensor

from unlearn.curvature.operator import Halves, Operator, Quotient
from unlearn.models.network import clone
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe
from unlearn.values.flat import norm
from unlearn.values.schedule import Batch


@dataclass(frozen=True)
class Segment:
    """Steps that a removal was carried through.

    Attributes:
        recipe: the loss, its augmentation and the batches.
        before: M's weights at the first of the steps, shape (dim,).
        now: M after the last of them.
        steps: that were taken.
        since: the first of them whose curvature the removal met.
    """

    recipe: Recipe
    before: Tensor
    now: Learner
    steps: range
    since: int

    def batches(self, most: int) -> Sequence[Batch]:
        """Pick batches that M' trains on too, evenly; a step that it does not take moves nothing of the removal.

        Args:
            most: how many points to look at; as many whole batches, but at least one.

        Returns:
            The batches, in the order of their steps.
        """
        shared = []
        for batch in self.recipe.schedule.batches(self.since):
            if batch.step >= self.steps.stop:
                break
            if len(batch.kept):
                shared.append(batch)
        count = min(max(most // self.recipe.schedule.batch_size, 1), len(shared))
        return [shared[(2 * place + 1) * len(shared) // (2 * count)] for place in range(count)]

    def rates(self, batches: Sequence[Batch]) -> list[float]:
        """Give the learning rates that batches were trained on at, as weights.

        Args:
            batches: of these steps.

        Returns:
            One a batch, above zero.
        """
        return [max(self.recipe.rate.at(batch.step), float_info.min) for batch in batches]

    def progress(self, batch: Batch) -> float:
        """Say how far along the steps a batch came.

        Args:
            batch: of these steps.

        Returns:
            In [0, 1): 0 at `before`.
        """
        return (batch.step - self.steps.start) / len(self.steps)

    def length(self, push: Tensor) -> float:
        """Say over what length a difference quotient is taken.

        Args:
            push: the removal, shape (dim,).

        Returns:
            The removal's length, in units of weight; but so long that rounding is not most of a difference of
            gradients.
        """
        return max(float(norm(push)), torch.finfo(push.dtype).eps ** 0.5 * float(norm(self.now.weights)))


def quotient_on(segment: Segment, most: int, push: Tensor) -> Operator:
    """Give the mean slope of the steps' gradients over the length of a removal.

    The product over steps i of (1 - eta_i H_i) is, to first order in eta, that of their mean H, weighted by eta_i: of
    the Hessians of the very batches, at the weights that each step started from (taken to lie on the line from first to
    last). Each is a difference quotient over the length of the removal, the distance that lies between M and M'.

    Args:
        segment: the steps.
        most: how many points to look at; as many whole batches, evenly spread over the steps, but at least one.
        push: the removal, shape (dim,).

    Returns:
        The operator, as the mean of every other batch and the rest; plain where there is one batch alone.
    """
    objective, before, now = segment.recipe.objective, segment.before, segment.now
    # in train mode running statistics do not enter, in eval mode they do not change
    bound = objective.bind(torch.empty_like(before), clone(now.buffers), as_trained=False)

    def gradient_at(batch: Batch) -> Callable[[Tensor], Tensor]:
        points, progress = batch.kept.to(before.device), segment.progress(batch)
        inputs = objective.inputs(points, objective.draws(batch.epoch))

        def gradient(displacement: Tensor) -> Tensor:
            torch.lerp(before, now.weights, progress, out=bound.weights).add_(displacement)
            count = len(batch.indices)
            _, found = bound.gradient(points, inputs, count=count, train=now.train_mode, step=batch.step)
            return found

        return gradient

    batches, length = segment.batches(most), segment.length(push)
    rates = segment.rates(batches)
    parts = [(rate, gradient_at(batch)) for batch, rate in zip(batches, rates, strict=True)]

    def mean(some: Sequence[tuple[float, Callable[[Tensor], Tensor]]]) -> Quotient:
        total = sum(rate for rate, _ in some)
        return Quotient(len(push), [(rate / total, gradient) for rate, gradient in some], length)

    if len(parts) < 2:
        return mean(parts)
    return Halves(mean(parts[::2]), mean(parts[1::2]), sum(rates[::2]) / sum(rates))
