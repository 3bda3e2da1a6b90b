"""The Hessians of many chains of linear layers, in closed form."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from unlearn.curvature.stacked import StackedHessian, runs
from unlearn.models.chain import Curved
from unlearn.models.stacked import StackedNetwork
from unlearn.train.stack_head import Head

ROWS = 4  # of one product; with more, what lies between the layers would leave the cache


@dataclass(frozen=True)
class ChainHessian:
    """The exact Hessians of K losses of chains of linear layers.

    Attributes:
        network: the function that all rows share, a chain.
        head: the loss of each row at the logits.
        curved: the second derivatives of the chain.
        of_weights: the Hessians of the penalty of the weights; None where there is none.
    """

    network: StackedNetwork
    head: Head
    curved: Curved
    of_weights: StackedHessian | None

    @classmethod
    def of(
        cls,
        network: StackedNetwork,
        weights: Tensor,
        inputs: Tensor,
        head: Head,
        penalty: Callable[[Tensor], Tensor],
    ) -> "ChainHessian":
        """Prepare for products.

        Args:
            network: a chain.
            weights: where, shape (K, dim).
            inputs: of each row, shape (K, b, ...).
            head: the loss of each row at the logits.
            penalty: maps weights, shape (K, dim), to what is added to the loss of each row.

        Returns:
            The operators.
        """
        assert network.chain is not None
        run = network.chain.forward(network.parts(weights.detach()), inputs)
        curved = network.chain.curved(run, head.slope(run.logits)[1])
        weighs = penalty(weights.detach().requires_grad_()).requires_grad
        return cls(network, head, curved, StackedHessian(weights, penalty) if weighs else None)

    def matvec(self, vectors: Tensor, going: Tensor) -> Tensor:
        """Multiply each Hessian with its row.

        Args:
            vectors: shape (K, dim).
            going: rows that are needed, bool, shape (K,).

        Returns:
            Shape (K, dim); zero in rows that are not needed.
        """
        out = torch.zeros_like(vectors)
        for rows in runs(going, ROWS):
            curved, along = self.curved.take(rows), vectors[rows]
            product = torch.empty_like(along)
            bend = partial(self.head.take(rows).bend, curved.run.logits)
            curved.product(self.network.parts(along), bend, self.network.parts(product))
            out[rows] = product
        if self.of_weights is not None:
            out += self.of_weights.matvec(vectors, going) * going[:, None]
        return out
