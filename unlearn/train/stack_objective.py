"""The losses of many small networks at once: same network and formulas, each row with its own weights and points."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearn.curvature.stacked import StackedHessian, StackedOperator
from unlearn.data.split import Split
from unlearn.models.chain import outer
from unlearn.models.stacked import StackedNetwork
from unlearn.penalties import Penalty
from unlearn.train.objective import Objective
from unlearn.train.stack_head import Head
from unlearn.train.stack_hessian import ChainHessian


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

    network: StackedNetwork
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
        parts = [split.batch(torch.arange(len(split))) for split in held.values()]
        inputs = parts[0] if len(parts) == 1 else torch.cat(parts)  # which would copy a single one too
        return cls(
            StackedNetwork.of(first.network),
            first.penalty,
            inputs,
            torch.cat([split.labels for split in held.values()]),
            torch.tensor([starts[id(each.split)] for each in objectives]),
            torch.tensor([each.penalty.strength for each in objectives], dtype=inputs.dtype),
        )

    def take(self, rows: slice) -> "StackedObjective":
        """Keep some rows; the points are not copied.

        Args:
            rows: which.

        Returns:
            The losses of these.
        """
        return replace(self, offsets=self.offsets[rows], strengths=self.strengths[rows])

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
        inputs, head = self._at(points, shares, rows)
        return head.losses(self.network.logits(self.network.parts(weights), inputs)) + self._of_weights(weights, rows)

    def gradients(
        self,
        weights: Tensor,
        points: Tensor,
        shares: Tensor,
        rows: slice | Tensor = slice(None),
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Give losses and gradients; arguments as for `losses`.

        Args:
            weights: shape (r, dim).
            points: shape (r, b).
            shares: shape (r, b).
            rows: which r of the rows.
            out: memory for the gradients, shape (r, dim); None takes new memory.

        Returns:
            The losses, detached, shape (r,), and their gradients, shape (r, dim).
        """
        weights = weights.detach()
        inputs, head = self._at(points, shares, rows)
        parts = self.network.parts(weights)
        gradients = torch.empty_like(weights) if out is None else out
        if self.network.chain is None:
            # parameters as leaves of their own: their gradients are put together once
            parts = [part.requires_grad_() for part in parts]
            losses = head.losses(self.network.logits(parts, inputs))
            # a loss depends on its own row alone, so the gradient of the sum holds each loss's own gradient
            pieces = torch.autograd.grad(losses.sum(), parts, allow_unused=True, materialize_grads=True)
            torch.cat([piece.flatten(1) for piece in pieces], dim=1, out=gradients)
        else:
            run = self.network.chain.forward(parts, inputs)
            losses, top = head.slope(run.logits)
            put = iter(self.network.parts(gradients))
            for delta, hidden in zip(run.deltas(top), run.hidden, strict=True):
                outer(delta, hidden, next(put), next(put))
        whole = weights.requires_grad_()
        of_weights = self._of_weights(whole, rows)
        if of_weights.requires_grad:
            gradients.add_(torch.autograd.grad(of_weights.sum(), whole)[0])
        return (losses + of_weights).detach(), gradients

    def mixtures(
        self,
        weights: Tensor,
        points: Tensor,
        shares: Tensor,
        factors: Tensor,
        rows: slice | Tensor,
        cuts: Sequence[slice],
    ) -> Tensor:
        """Sum gradients of a row at several weights, without holding each of them.

        Args:
            weights: shape (r, n, dim).
            points: shape (r, n, b).
            shares: shape (r, n, b).
            factors: of each gradient in its sum, shape (r, n).
            rows: which r of the rows.
            cuts: which of the n gradients go into each sum.

        Returns:
            Shape (r, len(cuts), dim).
        """
        (r, n, dim), size = weights.shape, points.shape[2]
        which = torch.arange(len(self.offsets))[rows].repeat_interleave(n)
        flat = weights.detach().flatten(0, 1)
        out = torch.empty(r, len(cuts), dim, dtype=weights.dtype)
        if self.network.chain is None:
            _, found = self.gradients(flat, points.flatten(0, 1), shares.flatten(0, 1), which)
            for place, cut in enumerate(cuts):
                torch.bmm(factors[:, None, cut], found.view_as(weights)[:, cut], out=out[:, place : place + 1])
            return out
        inputs, head = self._at(points.flatten(0, 1), (shares * factors[:, :, None]).flatten(0, 1), which)
        run = self.network.chain.forward(self.network.parts(flat), inputs)
        _, top = head.slope(run.logits)
        put = [iter(self.network.parts(out[:, place])) for place in range(len(cuts))]
        for pair in zip(run.deltas(top), run.hidden, strict=True):
            delta, hidden = (each.unflatten(0, (r, n)).flatten(1, 2) for each in pair)  # all points of a row in line
            for into, cut in zip(put, cuts, strict=True):
                own = slice(cut.start * size, cut.stop * size)
                outer(delta[:, own], hidden[:, own], next(into), next(into))
        whole = flat.requires_grad_()
        of_weights = self._of_weights(whole, which)
        if of_weights.requires_grad:
            (pull,) = torch.autograd.grad(of_weights.sum(), whole)
            for place, cut in enumerate(cuts):
                out[:, place] += torch.bmm(factors[:, None, cut], pull.view_as(weights)[:, cut])[:, 0]
        return out

    def hessian(self, weights: Tensor, points: Tensor, shares: Tensor) -> StackedOperator:
        """Give the Hessians of the losses; arguments as for `losses`.

        Args:
            weights: of all rows, shape (r, dim).
            points: shape (r, b).
            shares: shape (r, b).

        Returns:
            The operators.
        """
        if self.network.chain is None:
            return StackedHessian(weights, lambda some: self.losses(some, points, shares))
        inputs, head = self._at(points, shares, slice(None))
        return ChainHessian.of(self.network, weights, inputs, head, lambda some: self._of_weights(some, slice(None)))

    def _at(self, points: Tensor, shares: Tensor, rows: slice | Tensor) -> tuple[Tensor, Head]:
        flat = (points + self.offsets[rows, None]).flatten()
        inputs = self.inputs.index_select(0, flat).unflatten(0, points.shape)
        labels = self.labels.index_select(0, flat).view_as(points)
        return inputs, Head(labels, shares, self.penalty, self.strengths[rows])

    def _of_weights(self, weights: Tensor, rows: slice | Tensor) -> Tensor:
        strengths = self.strengths[rows]
        return torch.where(strengths == 0, 0.0, strengths * self.penalty.unit_of_rows(weights))


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(one.equal(other))
