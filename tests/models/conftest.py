from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearn.models.network import Network, clone

Gradient = Callable[..., Tensor]
Oracle = tuple[Tensor, Gradient]


@pytest.fixture
def float64_gradient() -> Callable[..., Oracle]:
    """Give a module's float64 weights, and the gradient of its training loss on a few inputs as a function of them."""

    def prepare(module: nn.Module, shape: tuple[int, ...], points: int = 3) -> Oracle:
        network = Network.of(module.double())
        buffers = network.initial_buffers()
        inputs = torch.randn(points, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(points)

        def gradient(weights: Tensor, create_graph: bool = False) -> Tensor:
            weights = weights if weights.requires_grad else weights.clone().requires_grad_()
            loss = F.cross_entropy(network.logits(weights, clone(buffers), inputs, train=True), labels)
            return torch.autograd.grad(loss, weights, create_graph=create_graph)[0]

        return network.initial_weights(), gradient

    return prepare


@pytest.fixture
def hessian_vector() -> Callable[[Oracle, Tensor], Tensor]:
    """Multiply a vector by the Hessian, by double backward."""

    def multiply(oracle: Oracle, vector: Tensor) -> Tensor:
        weights, gradient = oracle
        weights = weights.clone().requires_grad_()
        return torch.autograd.grad(gradient(weights, create_graph=True) @ vector, weights)[0]

    return multiply


@pytest.fixture
def assert_smooth(hessian_vector: Callable[[Oracle, Tensor], Tensor]) -> Callable[[Oracle], None]:
    """Compare a Hessian-vector product with central differences of the gradient."""

    def check(oracle: Oracle) -> None:
        weights, gradient = oracle
        direction = torch.randn(weights.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        nudge = 1e-5 * direction
        expected = (gradient(weights + nudge) - gradient(weights - nudge)) / 2e-5
        torch.testing.assert_close(hessian_vector(oracle, direction), expected, rtol=1e-5, atol=1e-7)

    return check


@pytest.fixture
def assert_symmetric() -> Callable[[Oracle], None]:
    """Check u.Hv = v.Hu, where double backward through one graph gives both products."""

    def check(oracle: Oracle) -> None:
        weights, gradient = oracle
        u, v = torch.randn(2, len(weights), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        weights.requires_grad_()
        slope = gradient(weights, create_graph=True)
        hu = torch.autograd.grad(slope @ u, weights, retain_graph=True)[0]
        hv = torch.autograd.grad(slope @ v, weights)[0]
        assert hu.norm() > 0
        torch.testing.assert_close(u @ hv, v @ hu, rtol=1e-6, atol=1e-9)

    return check
