"""Linear layers with functions of single entries between them, for many rows of weights: derivatives in closed form.

With h_0 the inputs, W_l and b_l the weights of layer l, and s the loss's slope at the logits,

    z_l = h_{l-1} W_l' + b_l,         h_l = f_l(z_l),
    delta_L = s,                      delta_l = f_l'(z_l) (delta_{l+1} W_{l+1}),
    grad W_l = delta_l' h_{l-1},      grad b_l = sum over points of delta_l

for each row; points are rows of the h_l, but columns of the logits, where a product with few classes is quicker
(Goodfellow, Bengio and Courville, Deep Learning, algorithm 6.4). The product of the Hessian with a direction is the
derivative of all of this along it (Pearlmutter 1994, Fast exact multiplication by the Hessian).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearn.models.network import Network


@dataclass(frozen=True)
class Pass:
    """What a forward pass leaves for the derivatives.

    Attributes:
        weights: W_l of each layer, shape (r, out, in).
        hidden: h_{l-1}, the inputs of each layer, shape (r, b, in).
        before: z_l of each layer but the last, shape (r, b, out).
        slopes: f_l'(z_l) of each layer but the last, shape (r, b, out).
        logits: shape (r, classes, b).
    """

    weights: Sequence[Tensor]
    hidden: Sequence[Tensor]
    before: Sequence[Tensor]
    slopes: Sequence[Tensor]
    logits: Tensor

    def deltas(self, top: Tensor) -> list[Tensor]:
        """Carry the loss's slope back.

        Args:
            top: s, shape (r, classes, b).

        Returns:
            delta_l of each layer, shape (r, b, out).
        """
        found = [top.mT]
        for weight, slope in zip(reversed(self.weights[1:]), reversed(self.slopes), strict=True):
            found.append(torch.bmm(found[-1], weight).mul_(slope))
        return found[::-1]


@dataclass(frozen=True)
class Chain:
    """A chain of linear layers.

    Attributes:
        functions: f_l after each layer but the last.
    """

    functions: tuple[nn.Module, ...]

    @classmethod
    def of(cls, network: Network) -> "Chain | None":
        """Look at what a network is made of.

        Args:
            network: any.

        Returns:
            The chain; None where the network is something else.
        """
        if type(network.module) is not nn.Sequential:
            return None
        layers = list(network.module)
        if layers and type(layers[0]) is nn.Flatten and layers[0].start_dim == 1:
            layers = layers[1:]
        linear, functions = layers[::2], layers[1::2]
        if len(linear) != len(functions) + 1 or not all(map(_is_known, functions)):
            return None
        if not all(type(layer) is nn.Linear and layer.bias is not None for layer in linear):
            return None
        if len(network.layout.names) != 2 * len(linear):
            return None  # something is frozen, or shared
        return cls(tuple(functions))

    def forward(self, parts: Sequence[Tensor], inputs: Tensor) -> Pass:
        """Run the chain.

        Args:
            parts: W and b of each layer in turn, shapes (r, out, in) and (r, out).
            inputs: of each row, shape (r, b, ...).

        Returns:
            The pass.
        """
        hidden, before, slopes = [inputs.flatten(2)], [], []
        for function, weight, bias in zip(self.functions, parts[::2], parts[1::2], strict=False):
            before.append(torch.baddbmm(bias[:, None], hidden[-1], weight.mT))
            hidden.append(function(before[-1]))
            slopes.append(_slope(function, before[-1], hidden[-1]))
        *_, weight, bias = parts
        return Pass(parts[::2], hidden, before, slopes, torch.baddbmm(bias[:, :, None], weight, hidden[-1].mT))

    def curved(self, run: Pass, top: Tensor) -> "Curved":
        """Prepare for products with the Hessian.

        Args:
            run: a forward pass.
            top: the loss's slope at the logits, shape (r, classes, b).

        Returns:
            The second derivatives.
        """
        deltas, bends = run.deltas(top), []
        for layer, function in enumerate(self.functions):
            bend = _bend(function, run.before[layer])
            bends.append(None if bend is None else bend.mul_(torch.bmm(deltas[layer + 1], run.weights[layer + 1])))
        return Curved(run, deltas, bends)


@dataclass(frozen=True)
class Curved:
    """The second derivatives at a pass.

    Attributes:
        run: the pass.
        deltas: delta_l of each layer, shape (r, b, out).
        bends: f_l''(z_l) (delta_{l+1} W_{l+1}) of each layer but the last, shape (r, b, out); None where it is zero.
    """

    run: Pass
    deltas: Sequence[Tensor]
    bends: Sequence[Tensor | None]

    def take(self, rows: slice) -> "Curved":
        """Look at some rows.

        Args:
            rows: which; nothing is copied.

        Returns:
            The second derivatives of these.
        """
        run = self.run
        weights, hidden, before, slopes, deltas = (
            [each[rows] for each in kind] for kind in (run.weights, run.hidden, run.before, run.slopes, self.deltas)
        )
        bends = [None if bend is None else bend[rows] for bend in self.bends]
        return Curved(Pass(weights, hidden, before, slopes, run.logits[rows]), deltas, bends)

    def product(self, along: Sequence[Tensor], curve: Callable[[Tensor], Tensor], out: Sequence[Tensor]) -> None:
        """Differentiate the gradient along a direction.

        Args:
            along: the direction as W and b of each layer in turn, shapes (r, out, in) and (r, out).
            curve: maps what the logits move by to what the loss's slope there moves by, both of shape (r, classes, b).
            out: gets the products, in the shapes of `along`.
        """
        run, turns = self.run, along[::2]
        moved: list[Tensor] = []  # what each z_l moves by
        carried: list[Tensor] = []  # what each h_l moves by
        for layer, (turn, shift) in enumerate(zip(turns[:-1], along[1:-1:2], strict=True)):
            moved.append(torch.baddbmm(shift[:, None], run.hidden[layer], turn.mT))
            if layer:
                moved[-1].baddbmm_(carried[-1], run.weights[layer].mT)
            carried.append(moved[-1] * run.slopes[layer])
        logits = torch.baddbmm(along[-1][:, :, None], turns[-1], run.hidden[-1].mT)
        if carried:
            logits.baddbmm_(run.weights[-1], carried[-1].mT)
        change = curve(logits).mT  # of delta_l
        for layer in reversed(range(len(turns))):
            outer(change, run.hidden[layer], out[2 * layer], out[2 * layer + 1])
            if layer:
                out[2 * layer].baddbmm_(self.deltas[layer].mT, carried[layer - 1])
                below = carried[layer - 1]  # read for the last time above; new memory would cost as much as the sum
                change = torch.bmm(change, run.weights[layer], out=below).baddbmm_(self.deltas[layer], turns[layer])
                change.mul_(run.slopes[layer - 1])
                if (bend := self.bends[layer - 1]) is not None:
                    change.addcmul_(bend, moved[layer - 1])


def outer(delta: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Put the gradient of a layer together.

    Args:
        delta: shape (r, b, out).
        hidden: the layer's inputs, shape (r, b, in).
        weight: gets the gradient of W, shape (r, out, in).
        bias: gets the gradient of b, shape (r, out).
    """
    torch.bmm(delta.mT, hidden, out=weight)
    torch.sum(delta, 1, out=bias)


def _is_known(function: nn.Module) -> bool:
    return type(function) in (nn.ReLU, nn.Tanh) or (type(function) is nn.GELU and function.approximate == "none")


def _slope(function: nn.Module, z: Tensor, h: Tensor) -> Tensor:
    if isinstance(function, nn.ReLU):
        return h.sign()
    if isinstance(function, nn.Tanh):
        return 1 - h.square()
    return torch.special.ndtr(z) + z * _density(z)


def _bend(function: nn.Module, z: Tensor) -> Tensor | None:
    if isinstance(function, nn.ReLU):
        return None
    if isinstance(function, nn.Tanh):
        h = z.tanh()
        return 2 * h * (h.square() - 1)
    return _density(z) * (2 - z.square())


def _density(z: Tensor) -> Tensor:
    return torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
