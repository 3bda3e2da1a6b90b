"""Convolution and BatchNorm whose Hessian-vector product costs what it must, and no more.

A product by double backward runs each layer forward, back, and both of them back again. torch's own second derivatives
of these two layers are sums of many small steps, some on slow kernels; and the first pass back computes gradients of
weights whose values nobody reads. Here a convolution's second derivative is three calls of the kernels that training
uses, and those gradients are left out: of F = one forward pass, a product costs 8 F instead of 9.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
CONVOLUTIONS = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}
NO_OUTPUT_PADDING = [0, 0, 0]


class Economical(TorchFunctionMode):
    """Inside it, convolutions and BatchNorms are built for Hessian-vector products.

    The values of a gradient taken through them with `create_graph` are NaN where a weight of a convolution is a view of
    `point`; the derivative of that gradient is right, since the gradient enters it only through views.

    Where `point` is split, its pieces become leaves of their own, so that no gradient of theirs has to be put together
    into one as long as `point`.

    Attributes:
        point: the flat weights with respect to which the product is taken, a leaf.
        leaves: `point` itself, for what depends on all of it, and its pieces.
    """

    def __init__(self, point: Tensor) -> None:
        super().__init__()
        self.point = point
        self.leaves = [point]
        self.storage = point.untyped_storage().data_ptr()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace a call where there is something to gain."""
        kwargs = kwargs or {}
        replaced: Any
        if func in CONVOLUTIONS:
            replaced = self._convolution(CONVOLUTIONS[func], *args, **kwargs)
        elif func is F.batch_norm:
            replaced = _batch_norm(*args, **kwargs)
        elif func is Tensor.split and args[0] is self.point:
            replaced = self._split(*args[1:], **kwargs)
        else:
            replaced = None
        return func(*args, **kwargs) if replaced is None else replaced

    def _split(self, *sizes: Any, **named: Any) -> tuple[Tensor, ...]:
        pieces = tuple(piece.requires_grad_() for piece in self.point.detach().split(*sizes, **named))
        self.leaves.extend(pieces)
        return pieces

    def _convolution(
        self,
        dims: int,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        if isinstance(padding, str) or input.dim() != dims + 2:
            return None
        stride, padding, dilation = (
            [each] * dims if isinstance(each, int) else list(each) for each in (stride, padding, dilation)
        )
        rest = (stride, padding, dilation, False, NO_OUTPUT_PADDING[:dims], groups)
        unread = weight.untyped_storage().data_ptr() == self.storage
        out: Tensor = _Convolution.apply(input, weight, rest, unread)
        return out if bias is None else out + bias.view(-1, *[1] * dims)


class SideBySide(TorchFunctionMode):
    """Inside it, BatchNorm in train mode takes its input for several batches of one size, and looks at each alone.

    Row i * batches + j is point i of batch j. So many batches cost a convolution one call, and BatchNorm as well, to
    which they are channels. Running statistics are not updated.

    Attributes:
        batches: how many.
    """

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Widen a BatchNorm; a mode outside this one sees the wide one."""
        if func is F.batch_norm and self.batches > 1:
            return _wide_batch_norm(self.batches, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _wide_batch_norm(
    batches: int,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *rest: float,
    **named: float,
) -> Tensor:
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, *rest, **named)
    wide = input.reshape(len(input) // batches, batches * input.shape[1], *input.shape[2:])
    scale, shift = (None if each is None else each.repeat(batches) for each in (weight, bias))
    return F.batch_norm(wide, None, None, scale, shift, True, *rest, **named).reshape(input.shape)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    alone = training and input.numel() == input.shape[1]  # one value a channel, which torch refuses
    if weight is None or bias is None or momentum is None or alone:
        return None
    out: Tensor = _BatchNorm.apply(input, weight, bias, running_mean, running_var, training, momentum, eps)
    return out


class _Convolution(torch.autograd.Function):
    """y = x * w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, rest: tuple[Any, ...], unread: bool) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.rest, ctx.unread = rest, unread
        out: Tensor = aten.convolution(x, w, None, *rest)
        return out

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        # with grad mode on, this gradient is about to be differentiated
        needs_w = not (ctx.unread and torch.is_grad_enabled())
        x, w = ctx.saved_tensors
        return (*_ConvolutionBack.apply(d, x, w, ctx.rest, ctx.needs_input_grad[0], needs_w), None, None)


class _ConvolutionBack(torch.autograd.Function):
    """From d, the gradient at y: g_x, which is d transposed-convolved with w, and g_w, which correlates x with d."""

    @staticmethod
    def forward(
        ctx: Any, d: Tensor, x: Tensor, w: Tensor, rest: tuple[Any, ...], needs_x: bool, needs_w: bool
    ) -> tuple[Tensor | None, Tensor]:
        ctx.save_for_backward(d, x, w)
        ctx.rest = rest
        ctx.set_materialize_grads(False)
        g_x = g_w = None
        if needs_x or needs_w:
            g_x, g_w, _ = aten.convolution_backward(d, x, w, None, *rest, [needs_x, needs_w, False])
        return g_x, w.new_full((), torch.nan).expand_as(w) if g_w is None else g_w

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, b_x: Tensor | None, b_w: Tensor | None) -> tuple[Tensor | None, ...]:
        # both outputs are bilinear, so each derivative is one of the three kernels with an argument exchanged
        d, x, w = ctx.saved_tensors
        to_d = None
        if b_w is not None:
            to_d = aten.convolution(x, b_w, None, *ctx.rest)
        if b_x is not None:
            more = aten.convolution(b_x, w, None, *ctx.rest)
            to_d = more if to_d is None else to_d.add_(more)
        to_x = to_w = None
        mask = [b_w is not None and ctx.needs_input_grad[1], b_x is not None, False]
        if any(mask):
            given = x if b_x is None else b_x, w if b_w is None else b_w
            to_x, to_w, _ = aten.convolution_backward(d, *given, None, *ctx.rest, mask)
        return to_d, to_x, to_w, None, None, None


class _BatchNorm(torch.autograd.Function):
    """y = gamma x^ + beta with x^ = s (x - mu), statistics of each channel: the batch's, or the running ones."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        out: Tensor
        training = training or running_mean is None
        out, mu, s = aten.native_batch_norm(x, gamma, beta, running_mean, running_var, training, momentum, eps)
        if not training:
            assert running_mean is not None
            assert running_var is not None
            mu, s = running_mean.clone(), torch.rsqrt(running_var + eps)
        ctx.save_for_backward(x, gamma, mu, s)
        ctx.training = training
        return out

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        return (*_BatchNormBack.apply(d, *ctx.saved_tensors, ctx.training), *[None] * 5)


class _BatchNormBack(torch.autograd.Function):
    """From d, the gradient at y, with P(u) = u - mean(u) - x^ mean(u x^) for the batch's statistics, else P(u) = u.

    g_x = gamma s P(d),        g_gamma = sum(d x^),        g_beta = sum(d)
    """

    @staticmethod
    def forward(
        ctx: Any, d: Tensor, x: Tensor, gamma: Tensor, mu: Tensor, s: Tensor, training: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        back, g_gamma, g_beta = _projected(d, x, mu, s, training)
        ctx.save_for_backward(back, x, gamma, mu, s, g_gamma)
        ctx.training = training
        return back * _channels(gamma, x), g_gamma, g_beta

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, b_x: Tensor, b_gamma: Tensor, b_beta: Tensor) -> tuple[Tensor | None, ...]:
        back, x, gamma, mu, s, sum_d = ctx.saved_tensors
        to_gamma = (b_x * back).sum([each for each in range(x.dim()) if each != 1])
        # b_gamma x^ + b_beta, then the part through g_x
        to_d = _affine(x, b_gamma * s, b_beta - b_gamma * s * mu)
        if not ctx.training:  # P is the identity
            to_d.addcmul_(b_x, _channels(gamma * s, x))
            return to_d, back * _channels(b_gamma, x), to_gamma, None, None, None
        forth, sum_b, _ = _projected(b_x, x, mu, s, training=True)
        to_d.addcmul_(forth, _channels(gamma, x))
        # the batch's statistics move with x: ds = -s^2 mean(x^ dx), dx^ = s P(dx), and P holds x^ twice
        scale = -gamma * s * (x.shape[1] / x.numel())
        to_x = _affine(x, scale * to_gamma * s, -scale * to_gamma * s * mu)
        to_x.addcmul_(forth, _channels(scale * sum_d, x)).addcmul_(back, _channels(b_gamma + scale * sum_b, x))
        return to_d, to_x, to_gamma, None, None, None


def _projected(u: Tensor, x: Tensor, mu: Tensor, s: Tensor, training: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Give s P(u), sum(u x^) and sum(u)."""
    # CUDA's kernels refuse to go without a weight and saved statistics
    every, one, variance = [True, True, True], torch.ones_like(s), s.square().reciprocal()
    found = aten.native_batch_norm_backward(u, x, one, mu, variance, mu, s, training, 0.0, every)
    projected: tuple[Tensor, Tensor, Tensor] = tuple(found)
    return projected


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 2))


def _affine(x: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    return (x * _channels(factor, x)).add_(_channels(shift, x))
