"""The training loss as a function of flat weights and a set of points."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from unlearn.data.augmentation import Augmentation, Draws
from unlearn.data.split import Split
from unlearn.models.network import Buffers, Network, dropout_rates
from unlearn.penalties import Penalty
from unlearn.train.arithmetic import passes
from unlearn.train.bound import Bound
from unlearn.values.errors import choice
from unlearn.values.streams import generator, seed_for

NO_AUGMENTATION = Augmentation()
AUGMENTS = ("each_epoch", "once", "off")
RENORMALISE = ("remaining", "batch_size")


@dataclass(frozen=True)
class Objective:
    """Cross-entropy and penalty on the training set.

    Attributes:
        network: the function.
        split: D, on the device.
        penalty: added to the cross-entropy.
        augmentation: what may be drawn.
        augment: `each_epoch` draws anew, `once` keeps the first epoch's draws, `off`.
        renormalise: how M' averages a batch with points taken out: `remaining` divides by the points that are left,
            `batch_size` by the points that were there, so that it takes the rest of M's gradient and no more.
        seed: the run's seed, for the streams "augmentation" and "dropout".
        arithmetic: of the passes that train, see `unlearn/train/arithmetic.py`.
    """

    network: Network
    split: Split
    penalty: Penalty
    augmentation: Augmentation = NO_AUGMENTATION
    augment: str = "off"
    renormalise: str = "remaining"
    seed: int = 0
    arithmetic: str = "float32"

    def __post_init__(self) -> None:
        choice("schedule.augmentation", self.augment, AUGMENTS)
        choice("retrain.renormalise", self.renormalise, RENORMALISE)

    def draws(self, epoch: int) -> Draws | None:
        """Draw an epoch's crops and flips for every training point, or give them again where they are the newest.

        Args:
            epoch: 0 for the first.

        Returns:
            The draws, or None where nothing is augmented.
        """
        if self.augment == "off":
            return None
        epoch = 0 if self.augment == "once" else epoch
        if epoch not in self._newest:
            stream = generator(self.seed, "augmentation", epoch)
            drawn = self.augmentation.draw(len(self.split), stream, self.split.labels.device)
            self._newest.clear()
            self._newest[epoch] = drawn
        return self._newest[epoch]

    @cached_property
    def _newest(self) -> dict[int, Draws | None]:  # no field: it is no part of the value
        return {}

    @property
    def frozen_draws(self) -> Draws | None:
        """The draws of every epoch where they are drawn `once`; else None: a point has no one augmentation."""
        return self.draws(0) if self.augment == "once" else None

    @property
    def drops(self) -> bool:
        """Whether the network has dropout."""
        return any(rate > 0 for module in self.network.module.modules() for rate in dropout_rates(module).values())

    def masks(self, step: int, drops: bool | None = None) -> AbstractContextManager[object]:
        """Make dropout draw what it draws in this step.

        Args:
            step: picks the masks.
            drops: whether there is dropout, where that is known.

        Returns:
            For a forward pass.
        """
        if not (self.drops if drops is None else drops):
            return nullcontext()
        return _forked(seed_for(self.seed, "dropout", step), self.split.labels.device)

    def logits(
        self,
        weights: Tensor,
        buffers: Buffers,
        indices: Tensor,
        *,
        draws: Draws | None = None,
        train: bool = True,
        step: int = 0,
    ) -> Tensor:
        """Run the network on some training points; arguments as for `loss`.

        Args:
            weights: flat, shape (dim,).
            buffers: in train mode BatchNorm updates them in place.
            indices: the points, shape (k,).
            draws: the epoch's augmentation.
            train: train mode or eval mode.
            step: picks the dropout masks.

        Returns:
            Shape (k, num_classes).
        """
        with self.masks(step):
            out = self.network.logits(weights, buffers, self.split.batch(indices, draws), train=train)
        return out.to(weights.dtype)

    def inputs(self, indices: Tensor, draws: Draws | None) -> Tensor:
        """Prepare some training points, once for all learners that see them.

        Args:
            indices: the points, shape (k,).
            draws: the epoch's augmentation.

        Returns:
            Network inputs, shape (k, ...).
        """
        return self.split.batch(indices, draws)

    def bind(self, weights: Tensor, buffers: Buffers, *, as_trained: bool = True) -> Bound:
        """Make the gradient at one learner's weights cheap, step after step.

        Args:
            weights: flat, shape (dim,); changed in place between steps.
            buffers: in train mode BatchNorm updates them in place.
            as_trained: in the arithmetic of training, and on CUDA as graphs, which only many steps pay back.

        Returns:
            The same loss and gradient as `gradient`.
        """
        return Bound.of(self if as_trained else replace(self, arithmetic="float32"), weights, buffers, as_trained)

    def on_data(self, indices: Tensor, logits: Tensor) -> Tensor:
        """Give the part of the loss that depends on the data: cross-entropy and penalty of the logits.

        Args:
            indices: the points, shape (k,).
            logits: of these points, shape (k, num_classes).

        Returns:
            A scalar in nats.
        """
        loss = F.cross_entropy(logits, self.split.labels[indices])
        return loss + self.penalty.of_logits(logits) if self.penalty.strength else loss

    def loss(
        self,
        weights: Tensor,
        buffers: Buffers,
        indices: Tensor,
        *,
        draws: Draws | None = None,
        count: int | None = None,
        train: bool = True,
        step: int = 0,
    ) -> Tensor:
        """Give the loss on some training points.

        mean(cross-entropy + penalty of the logits) + penalty of the weights, over k points; with
        `renormalise=batch_size` the mean is multiplied by k / count.

        Args:
            weights: flat, shape (dim,).
            buffers: in train mode BatchNorm updates them in place.
            indices: the points, shape (k,).
            draws: the epoch's augmentation.
            count: the number of points of the batch that these were taken from; None where they are all.
            train: train mode or eval mode.
            step: picks the dropout masks.

        Returns:
            A scalar in nats.
        """
        logits = self.logits(weights, buffers, indices, draws=draws, train=train, step=step)
        return self.of_outputs(weights, indices, logits, count)

    def of_outputs(self, weights: Tensor, indices: Tensor, logits: Tensor, count: int | None) -> Tensor:
        """Give the loss of outputs that are there already; arguments as for `loss`.

        Args:
            weights: flat, shape (dim,).
            indices: the points, shape (k,).
            logits: of these points, shape (k, num_classes).
            count: the number of points of the batch that these were taken from; None where they are all.

        Returns:
            A scalar in nats.
        """
        on_data = self.on_data(indices, logits)
        if count is not None and self.renormalise == "batch_size" and count != len(indices):
            on_data = on_data * (len(indices) / count)
        # without a penalty, adding zeros would take a small network a tenth of its step
        return on_data + self.penalty.of_weights(weights) if self.penalty.strength else on_data

    def gradient(
        self,
        weights: Tensor,
        buffers: Buffers,
        indices: Tensor,
        *,
        draws: Draws | None = None,
        count: int | None = None,
        train: bool = True,
        step: int = 0,
        as_trained: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Give loss and gradient on some training points; arguments as for `loss`.

        Args:
            weights: flat, shape (dim,).
            buffers: in train mode BatchNorm updates them in place.
            indices: the points, shape (k,).
            draws: the epoch's augmentation.
            count: the number of points of the batch that these were taken from.
            train: train mode or eval mode.
            step: picks the dropout masks.
            as_trained: in the arithmetic of training.

        Returns:
            The loss, detached, and its gradient, shape (dim,).
        """
        point = weights.detach().requires_grad_()
        with passes(self.arithmetic if as_trained else "float32", weights.device):
            loss = self.loss(point, buffers, indices, draws=draws, count=count, train=train, step=step)
            (gradient,) = torch.autograd.grad(loss, point)
        return loss.detach(), gradient


@contextmanager
def _forked(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for a forward pass and put them back, since dropout knows no other."""
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
