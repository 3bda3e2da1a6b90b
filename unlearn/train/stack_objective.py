"""The losses of many small networks at once: same network and formulas, each row with its own weights and points."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.data.split import Split
from unlearn.models.network import Network
from unlearn.penalties import Penalty
from unlearn.train.objective import Objective


@dataclass(frozen=True)
class StackedObjective:
    """The losses of several objectives that differ in penalty strength and in their points, but in nothing else.

    Attributes:
        network: the function that all share.
        penalty: the formula that all share.
        inputs: prepared inputs of all training sets, one behind the other, shape (n, ...).
        labels: their classes, shape (n,).
        offsets: where the training set of each row starts, shape (rows,).
        strengths: of each row's penalty, shape (rows,).
    """

    network: Network
    penalty: Penalty
    inputs: Tensor
    labels: Tensor
    offsets: Tensor
    strengths: Tensor

    @classmethod
    def of(cls, objectives: Sequence[Objective]) -> "StackedObjective":
        """Stack objectives; equal training sets are held once.

        Args:
            objectives: one a row, without augmentation; networks without buffers and dropout.

        Returns:
            The stack.
        """
        splits = {id(each.split): each.split for each in objectives}
        starts: dict[int, int] = {}
        held: dict[int, Split] = {}
        place = 0
        for key, split in splits.items():
            known = next((other for other in held if _same(splits[other].inputs, split.inputs)
                          and _same(splits[other].labels, split.labels)), None)  # fmt: skip
            if known is None:
                held[key] = split
                starts[key], place = place, place + len(split)
            else:
                starts[key] = starts[known]
        first = objectives[0]
        inputs = torch.cat([split.batch(torch.arange(len(split))) for split in held.values()])
        return cls(
            first.network,
            first.penalty,
            inputs,
            torch.cat([split.labels for split in held.values()]),
            torch.tensor([starts[id(each.split)] for each in objectives]),
            torch.tensor([each.penalty.strength for each in objectives], dtype=inputs.dtype),
        )

    def losses(self, weights: Tensor, points: Tensor, shares: Tensor, rows: slice | Tensor = slice(None)) -> Tensor:
        """Give the loss of each row on its points.

        sum_i share_i (cross-entropy + penalty of the logits)_i + penalty of the weights; with shares 1/k on k points it
        is `Objective.loss`.

        Args:
            weights: shape (r, dim).
            points: of each row's own training set, shape (r, b).
            shares: shape (r, b); 0 takes a point out.
            rows: which r of the rows; as indices, a row may come more than once.

        Returns:
            Shape (r,), in nats.
        """
        strengths = self.strengths[rows]
        flat = (points + self.offsets[rows, None]).flatten()
        inputs = self.inputs.index_select(0, flat).unflatten(0, points.shape)
        logits = torch.func.vmap(self._logits)(weights, inputs)
        columns = logits.flatten(0, 1).mT.contiguous()  # classes first: so a short sum over them is a long one of rows
        labels = self.labels.index_select(0, flat)
        each = -columns.log_softmax(0).gather(0, labels[None])[0].view_as(points)
        if not bool(strengths.any()):
            return (shares * each).sum(1)
        each = each + strengths[:, None] * self.penalty.each_of_columns(columns).view_as(points)
        of_weights: Tensor = torch.func.vmap(self.penalty.unit_of_weights)(weights)
        return (shares * each).sum(1) + strengths * of_weights

    def gradients(
        self, weights: Tensor, points: Tensor, shares: Tensor, rows: slice | Tensor = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Give losses and gradients; arguments as for `losses`.

        Args:
            weights: shape (r, dim).
            points: shape (r, b).
            shares: shape (r, b).
            rows: which r of the rows.

        Returns:
            The losses, detached, shape (r,), and their gradients, shape (r, dim).
        """
        point = weights.detach().requires_grad_()
        losses = self.losses(point, points, shares, rows)
        # a loss depends on its own row alone, so the gradient of the sum holds each loss's own gradient
        (gradients,) = torch.autograd.grad(losses.sum(), point)
        return losses.detach(), gradients

    def _logits(self, weights: Tensor, inputs: Tensor) -> Tensor:
        return self.network.logits(weights, {}, inputs, train=True)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(one.equal(other))
