"""One network at many weights: each row of a matrix of weights is a network of its own, with inputs of its own."""

from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unlearn.models.network import Network

POINTWISE = (nn.ReLU, nn.GELU, nn.Tanh)


@dataclass(frozen=True)
class StackedNetwork:
    """A network without buffers and dropout, run for all rows in one go.

    Any network runs through `torch.func.vmap`. Linear layers with functions of single entries between them, as small
    networks are, run as a chain of batched matrix products with the points in the last dimension: half the time, as
    gradients come out in the order of the weights.

    Attributes:
        network: the function that all rows share.
        dense: the layers where it is such a chain; else None.
        lock: of the shared module, which a pass through it changes and restores.
    """

    network: Network
    dense: tuple[nn.Module, ...] | None
    lock: Lock

    @classmethod
    def of(cls, network: Network) -> "StackedNetwork":
        """Look at what a network is made of.

        Args:
            network: without buffers and dropout.

        Returns:
            The same function for many rows.
        """
        return cls(network, _chain(network), Lock())

    def parts(self, weights: Tensor) -> list[Tensor]:
        """Look at rows of weights as parameters.

        Args:
            weights: shape (r, dim).

        Returns:
            A view for each parameter in the order of the layout, shape (r, *shape).
        """
        layout = self.network.layout
        pieces = weights.split(layout.sizes, dim=1)
        return [piece.unflatten(1, shape) for piece, shape in zip(pieces, layout.shapes, strict=True)]

    def logits(self, parts: list[Tensor], inputs: Tensor) -> Tensor:
        """Run the network in train mode.

        Args:
            parts: see `parts`.
            inputs: of each row, shape (r, b, ...).

        Returns:
            Shape (r, num_classes, b).
        """
        if self.dense is None:
            with self.lock:
                self.network.module.train()
                out: Tensor = torch.func.vmap(self._one)(parts, inputs)
            return out.mT
        given, hidden = iter(parts), inputs.flatten(2).mT
        for layer in self.dense:
            if isinstance(layer, nn.Linear):
                weight, bias = next(given), next(given)
                hidden = torch.baddbmm(bias[:, :, None], weight, hidden)
            else:
                hidden = layer(hidden)
        return hidden

    def _one(self, parts: list[Tensor], inputs: Tensor) -> Tensor:
        named = dict(zip(self.network.layout.names, parts, strict=True))
        out: Tensor = functional_call(self.network.module, named, (inputs,))
        return out


def _chain(network: Network) -> tuple[nn.Module, ...] | None:
    if type(network.module) is not nn.Sequential:
        return None
    layers = list(network.module)
    if layers and type(layers[0]) is nn.Flatten and layers[0].start_dim == 1:
        layers = layers[1:]
    linear = [layer for layer in layers if type(layer) is nn.Linear and layer.bias is not None]
    others = [layer for layer in layers if type(layer) in POINTWISE]
    if len(linear) + len(others) < len(layers) or len(network.layout.names) != 2 * len(linear):
        return None  # the second: something is frozen, shared, or not a row of inputs times a matrix
    return tuple(layers)
