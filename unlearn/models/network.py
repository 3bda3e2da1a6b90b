"""A network as a function of one flat weight vector.

The module is only a skeleton: weights and buffers are passed in, so M, M' and M'' share one module, and a gradient or a
Hessian-vector product is taken with respect to a single tensor.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unlearn.values.flat import Layout

Buffers = dict[str, Tensor]


def dropout_rates(module: nn.Module) -> dict[str, float]:
    """Find the rates at which a module itself drops values.

    Args:
        module: a layer; what lies inside it is not looked at.

    Returns:
        By attribute: `p` of torch's own layers; of others numbers with dropout in their name, which transformers hand
        to `F.dropout`.
    """
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return {"p": module.p}
    return {name: value for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)}


@dataclass(frozen=True)
class Network:
    """A module and the layout of its trainable parameters.

    Attributes:
        module: the skeleton; its own parameters hold the values it was built with and are never changed.
        layout: the layout of the flat weight vector.
    """

    module: nn.Module
    layout: Layout

    @classmethod
    def of(cls, module: nn.Module) -> "Network":
        """Wrap a module.

        Args:
            module: any classifier from a batch of inputs to logits.

        Returns:
            The network.
        """
        return cls(module, Layout.of(module))

    def initial_weights(self) -> Tensor:
        """Copy the weights that the module was built with.

        Returns:
            A new vector of length `layout.dim`.
        """
        return self.layout.flatten(dict(self.module.named_parameters()))

    def initial_buffers(self) -> Buffers:
        """Copy the buffers that the module was built with, but for those that it does not save: they are constants.

        Returns:
            Name to new tensor.
        """
        # a transformer's position numbers are such constants; taken for state, they would pass for BatchNorm's
        saved = self.module.state_dict().keys()
        return {name: buffer.clone() for name, buffer in self.module.named_buffers() if name in saved}

    def bind(self, weights: Tensor, buffers: Buffers) -> nn.Module:
        """Make a module whose parameters are views of a flat vector: the same numbers as `logits`, and less overhead.

        Args:
            weights: flat, length `layout.dim`; writing to it changes the module.
            buffers: by name; used by the module as its own.

        Returns:
            A copy of the skeleton. Its trainable parameters come in the order of the layout.
        """
        views = self.layout.views(weights.detach())
        # deepcopy takes what stands in its memo instead of copying; tied parameters stay tied
        held = {name: buffer for name, buffer in self.module.named_buffers() if name in buffers}
        memo: dict[int, object] = {id(buffer): buffers[name] for name, buffer in held.items()}
        for name, parameter in self.module.named_parameters():
            memo[id(parameter)] = nn.Parameter(views[name]) if name in views else parameter
        return copy.deepcopy(self.module, memo)

    def logits(self, weights: Tensor, buffers: Buffers, inputs: Tensor, *, train: bool) -> Tensor:
        """Run the network.

        Args:
            weights: flat, length `layout.dim`.
            buffers: by name; in train mode BatchNorm updates them in place.
            inputs: a prepared batch, shape (b, ...).
            train: whether BatchNorm uses the batch's statistics, and dropout drops.

        Returns:
            Logits, shape (b, num_classes).
        """
        if self.module.training != train:
            self.module.train(train)
        out: Tensor = functional_call(self.module, {**self.layout.views(weights), **buffers}, (inputs,))
        return out


def clone(buffers: Buffers) -> Buffers:
    """Copy buffers, so that a forward pass in train mode leaves the originals alone.

    Args:
        buffers: by name.

    Returns:
        Name to new tensor.
    """
    return {name: torch.clone(buffer) for name, buffer in buffers.items()}
