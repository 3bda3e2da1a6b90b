"""One network at many weights: each row of a matrix of weights is a network of its own, with inputs of its own."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from unlearn.models.chain import Chain
from unlearn.models.network import Network


@dataclass(frozen=True)
class StackedNetwork:
    """A network without buffers and dropout, run for all rows in one go.

    Any network runs through `torch.func.vmap`. Chains of linear layers, as small networks are, run as batched matrix
    products, with derivatives in closed form: a fraction of the time.

    Attributes:
        network: the function that all rows share.
        chain: the layers where it is such a chain; else None.
    """

    network: Network
    chain: Chain | None

    @classmethod
    def of(cls, network: Network) -> "StackedNetwork":
        """Look at what a network is made of.

        Args:
            network: without buffers and dropout.

        Returns:
            The same function for many rows.
        """
        return cls(network, Chain.of(network))

    def parts(self, weights: Tensor) -> list[Tensor]:
        """Look at rows of weights as parameters.

        Args:
            weights: shape (r, dim).

        Returns:
            A view for each parameter in the order of the layout, shape (r, *shape).
        """
        pieces = torch.split_with_sizes(weights, self.network.layout.sizes, dim=1)
        return [
            piece if len(shape) == 1 else piece.unflatten(1, shape)
            for piece, shape in zip(pieces, self.network.layout.shapes, strict=True)
        ]

    def logits(self, parts: list[Tensor], inputs: Tensor) -> Tensor:
        """Run the network in train mode.

        Args:
            parts: see `parts`.
            inputs: of each row, shape (r, b, ...).

        Returns:
            Shape (r, num_classes, b).
        """
        if self.chain is not None:
            return self.chain.forward(parts, inputs).logits
        self.network.module.train()
        out: Tensor = torch.func.vmap(self._one)(parts, inputs)
        return out.mT

    def _one(self, parts: list[Tensor], inputs: Tensor) -> Tensor:
        named = dict(zip(self.network.layout.names, parts, strict=True))
        out: Tensor = functional_call(self.network.module, named, (inputs,))
        return out
