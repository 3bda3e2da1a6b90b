"""The curvature that a removal met on its way: of the batches that M' trained on too, where M was when it saw them."""

from collections.abc import Callable, Sequence
from functools import partial
from sys import float_info

import torch
from torch import Tensor

from unlearn.curvature.operator import Halves, Operator, Quotient
from unlearn.models.network import clone
from unlearn.train.bound import Bound
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe
from unlearn.values.flat import norm
from unlearn.values.schedule import Batch


def quotient_on_path(
    recipe: Recipe, before: Tensor, now: Learner, steps: range, since: int, most: int, push: Tensor
) -> Operator:
    """Give the mean slope of the steps' gradients over the length of a removal.

    The product over steps i of (1 - eta_i H_i) is, to first order in eta, that of their mean H, weighted by eta_i: of
    the Hessians of the very batches, at the weights that each step started from (taken to lie on the line from first to
    last). Each is a difference quotient over the length of the removal, the distance that lies between M and M'.

    Args:
        recipe: the loss, its augmentation and the batches.
        before: M's weights at the first of the steps.
        now: M after the last of them.
        steps: that were taken in between.
        since: the first of them whose curvature the removal met.
        most: how many points to look at; as many whole batches, evenly spread over these steps, but at least one.
        push: the removal, shape (dim,).

    Returns:
        The operator, as the mean of every other batch and the rest; plain where there is one batch alone.
    """
    length = quotient_length(push, now.weights)
    batches = batches_on_path(recipe, range(since, steps.stop), most)
    # in train mode running statistics do not enter, in eval mode they do not change
    bound = recipe.objective.bind(torch.empty_like(before), clone(now.buffers), as_trained=False)
    parts: list[tuple[float, Callable[[Tensor], Tensor]]] = []
    rates = rates_on_path(recipe, batches)
    for batch, rate in zip(batches, rates, strict=True):
        share = (batch.step - steps.start) / len(steps)
        points = batch.kept.to(before.device)
        inputs = recipe.objective.inputs(points, recipe.objective.draws(batch.epoch))
        parts.append((rate, partial(_gradient, bound, before, now, batch, points, inputs, share)))

    def mean(some: list[tuple[float, Callable[[Tensor], Tensor]]]) -> Quotient:
        total = sum(rate for rate, _ in some)
        return Quotient(len(push), [(rate / total, gradient) for rate, gradient in some], length)

    if len(parts) < 2:
        return mean(parts)
    return Halves(mean(parts[::2]), mean(parts[1::2]), sum(rates[::2]) / sum(rates))


def _gradient(
    bound: Bound,
    before: Tensor,
    now: Learner,
    batch: Batch,
    points: Tensor,
    inputs: Tensor,
    share: float,
    displacement: Tensor,
) -> Tensor:
    torch.lerp(before, now.weights, share, out=bound.weights).add_(displacement)
    _, gradient = bound.gradient(points, inputs, count=len(batch.indices), train=now.train_mode, step=batch.step)
    return gradient


def quotient_length(push: Tensor, weights: Tensor) -> float:
    """Say over what length a difference quotient is taken.

    Args:
        push: the removal, shape (dim,).
        weights: shape (dim,).

    Returns:
        The removal's length, in units of weight; but so long that rounding is not most of a difference of gradients.
    """
    return max(float(norm(push)), torch.finfo(push.dtype).eps ** 0.5 * float(norm(weights)))


def batches_on_path(recipe: Recipe, steps: range, most: int) -> Sequence[Batch]:
    """Pick batches that M' trains on too, evenly; a step that it does not take moves nothing of the removal.

    Args:
        recipe: the batches.
        steps: from which they are picked.
        most: how many points to look at; as many whole batches, but at least one.

    Returns:
        The batches, in the order of their steps.
    """
    shared = []
    for batch in recipe.schedule.batches(steps.start):
        if batch.step >= steps.stop:
            break
        if len(batch.kept):
            shared.append(batch)
    count = min(max(most // recipe.schedule.batch_size, 1), len(shared))
    return [shared[(2 * place + 1) * len(shared) // (2 * count)] for place in range(count)]


def rates_on_path(recipe: Recipe, batches: Sequence[Batch]) -> list[float]:
    """Give the learning rates that batches were trained on at, as weights.

    Args:
        recipe: the schedule of the rate.
        batches: of `batches_on_path`.

    Returns:
        One a batch, above zero.
    """
    return [max(recipe.rate.at(batch.step), float_info.min) for batch in batches]
