"""The loss at the logits of many small networks, with its first and second derivative.

With shares a_i of the points, probabilities p and the penalty P of strength g,

    sum_i a_i (-log p_{i, label} + g P)_i,      slope a (p - onehot + g P'),      bend a (p (v - p'v) + g P'' v)

Points are columns: with few classes, operations along the last dimension would take ten times as long.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.penalties import Penalty


@dataclass(frozen=True)
class Head:
    """Cross-entropy and penalty of the logits.

    Attributes:
        labels: classes of the points, shape (r, b).
        shares: of the points in the loss of their row, shape (r, b); 0 takes a point out.
        penalty: the formula that all rows share.
        strengths: of each row's penalty, shape (r,).
    """

    labels: Tensor
    shares: Tensor
    penalty: Penalty
    strengths: Tensor

    def take(self, rows: slice) -> "Head":
        """Look at some rows.

        Args:
            rows: which; nothing is copied.

        Returns:
            The loss of these.
        """
        return Head(self.labels[rows], self.shares[rows], self.penalty, self.strengths[rows])

    def losses(self, logits: Tensor) -> Tensor:
        """Give the loss of each row, so that autograd can differentiate it.

        Args:
            logits: shape (r, num_classes, b).

        Returns:
            Shape (r,), in nats.
        """
        each = -logits.log_softmax(1).gather(1, self.labels[:, None])[:, 0]
        if bool(self.strengths.any()):
            each = each + self._scaled(self.penalty.each_of_columns(logits))
        return (self.shares * each).sum(1)

    def slope(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Give the loss of each row and its derivative by the logits.

        Args:
            logits: shape (r, num_classes, b), without a graph.

        Returns:
            The losses, shape (r,), and their slopes, shape (r, num_classes, b).
        """
        labels = self.labels[:, None]
        logs = logits.log_softmax(1)
        each, slope = -logs.gather(1, labels)[:, 0], logs.exp()
        slope.scatter_add_(1, labels, slope.new_full((), -1.0).expand(labels.shape))
        if bool(self.strengths.any()):
            penalty, its_slope = self.penalty.slope_of_columns(logits)
            each.add_(self._scaled(penalty))
            slope.add_(self._scaled(its_slope))
        return (self.shares * each).sum(1), slope.mul_(self.shares[:, None])

    def bend(self, logits: Tensor, along: Tensor) -> Tensor:
        """Give what the slope moves by, to first order.

        Args:
            logits: shape (r, num_classes, b), without a graph.
            along: what the logits move by, in the same shape.

        Returns:
            Shape (r, num_classes, b).
        """
        probabilities = logits.softmax(1)
        change = probabilities * (along - (probabilities * along).sum(1, keepdim=True))
        if bool(self.strengths.any()):
            change.add_(self._scaled(self.penalty.bend_of_columns(logits, along)))
        return change.mul_(self.shares[:, None])

    def _scaled(self, penalty: Tensor) -> Tensor:
        strengths = self.strengths.view(-1, *[1] * (penalty.dim() - 1))
        return torch.where(strengths == 0, 0.0, strengths * penalty)  # zero times what overflows is NaN
