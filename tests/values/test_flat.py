import copy
import math

import pytest
import torch
from torch import nn

from unlearn.values.flat import CUDA_PIECE, Layout, buffer_distance, combined, distance, gram, norm


@pytest.fixture
def module() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))


def test_layout_follows_the_module(module: nn.Module) -> None:
    layout = Layout.of(module)
    assert layout.names == ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")
    assert layout.sizes == [54, 3, 3, 3, 6, 2]
    assert layout.dim == 71


def test_frozen_parameters_are_left_out(module: nn.Module) -> None:
    module[0].requires_grad_(False)
    assert Layout.of(module).names == ("1.weight", "1.bias", "3.weight", "3.bias")


def test_flatten_and_views_are_inverse(module: nn.Module) -> None:
    layout, named = Layout.of(module), dict(module.named_parameters())
    views = layout.views(layout.flatten(named))
    assert all(torch.equal(views[name], named[name]) for name in named)
    vector = torch.arange(71.0)
    assert torch.equal(layout.flatten(layout.views(vector)), vector)


def test_a_scalar_parameter_has_one_entry() -> None:
    layout = Layout(("a", "b"), (torch.Size(()), torch.Size((2,))))
    assert layout.sizes == [1, 2]
    assert layout.views(torch.tensor([7.0, 8.0, 9.0]))["a"].item() == 7


def test_flatten_copies_and_views_do_not(module: nn.Module) -> None:
    layout = Layout.of(module)
    vector = layout.flatten(dict(module.named_parameters()))
    before = module[3].bias.detach().clone()
    layout.views(vector)["3.bias"].fill_(5)
    assert vector[-2:].tolist() == [5, 5]
    assert torch.equal(module[3].bias, before)


def test_a_module_in_channels_last_keeps_its_memory_order(module: nn.Module) -> None:
    turned = copy.deepcopy(module).to(memory_format=torch.channels_last)
    layout, named = Layout.of(turned), dict(turned.named_parameters())
    assert layout.channels_last == {"0.weight"}
    vector = layout.flatten(named)
    assert torch.equal(vector[:54], named["0.weight"].permute(0, 2, 3, 1).reshape(-1))
    views = layout.views(vector)
    assert all(torch.equal(views[name], named[name]) for name in named)
    assert views["0.weight"].is_contiguous(memory_format=torch.channels_last)
    plain = Layout.of(module)
    assert torch.equal(plain.flatten(views), plain.flatten(dict(module.named_parameters())))


def test_gradients_flow_back_to_the_vector() -> None:
    layout = Layout(("a", "b"), (torch.Size((2,)), torch.Size((1, 2))))
    vector = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    views = layout.views(vector)
    (views["a"].sum() + (views["b"] ** 2).sum()).backward()
    assert vector.grad.tolist() == [1, 1, 6, 8]


def test_norm_of_eleven_million_entries() -> None:
    n = 11_173_962
    assert norm(torch.full((n,), 0.1)).item() == pytest.approx(math.sqrt(n) * torch.tensor(0.1).item(), rel=1e-6)
    assert norm(torch.ones(3)).dtype == torch.float64


def test_distance_of_equal_weights_is_zero_and_of_one_moved_entry_its_size() -> None:
    a = torch.linspace(-1, 1, 9)
    b = a.clone()
    assert distance(a, b).item() == 0
    b[4] += 0.25
    assert distance(a, b).item() == 0.25


def test_buffer_distance_is_one_norm_over_all_floating_point_buffers() -> None:
    a = {"mean": torch.zeros(2), "var": torch.ones(2), "count": torch.tensor(3)}
    b = {"mean": torch.tensor([3.0, 0.0]), "var": torch.tensor([1.0, 5.0]), "count": torch.tensor(900)}
    assert buffer_distance(a, b).item() == 5
    assert buffer_distance(a, a).item() == 0


def test_buffer_distance_without_buffers_is_zero() -> None:
    assert buffer_distance({}, {}).item() == 0
    assert buffer_distance({"count": torch.tensor(3)}, {"count": torch.tensor(4)}).item() == 0


@pytest.mark.parametrize(
    ("device", "length"), [("cpu", 100_000), pytest.param("cuda", 3 * CUDA_PIECE + 5, marks=pytest.mark.gpu)]
)
def test_inner_products_and_combinations_of_vectors_in_float64(device, length):
    stream = torch.Generator().manual_seed(0)
    rows = torch.randn(3, length, generator=stream)
    there = list(rows.to(device))
    torch.testing.assert_close(gram(there), rows.double() @ rows.double().T, rtol=1e-12, atol=1e-9)
    coefficients = torch.randn(4, 3, generator=stream, dtype=torch.float64)
    found = combined(coefficients, there)
    assert found.dtype == rows.dtype
    torch.testing.assert_close(found.cpu(), (coefficients @ rows.double()).float(), rtol=1e-6, atol=1e-7)
