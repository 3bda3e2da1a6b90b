"""Heads and whole transformers: layouts, second derivatives, and closed forms in float64."""

import pytest
import torch

from tests.encoders import tiny_bert
from tests.worlds import classifier, recipe
from unlearn.curvature.estimators import Lanczos
from unlearn.curvature.operator import dense
from unlearn.methods.single_gradient import SingleGradient
from unlearn.metrics.weight_space import sigma_of, unlearning_error_unrolled
from unlearn.models.network import Network, dropout_rates
from unlearn.models.text_finetune import TextFinetune
from unlearn.models.text_linear import TextLinear
from unlearn.train.hessian import Sample, hessian_at
from unlearn.train.learner import Learner
from unlearn.train.loop import train
from unlearn.train.recording import Recording, Trained
from unlearn.values.errors import UserError
from unlearn.values.flat import distance

WIDTH, CLASSES, POINTS = 5, 3, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("encoders") / "tiny")


def head():
    spec = TextLinear("minilm_linear", None, "minilm", "mean", 16, True, 8)
    return spec.build(torch.Size((WIDTH,)), CLASSES, seed=0)


def finetune(folder, pooling="mean", dropout=0.0, head_dropout=0.0):
    return TextFinetune("minilm_finetune", None, str(folder), pooling, 16, dropout, head_dropout)


def built(spec, seed=0):
    return spec.build(torch.Size((6,)), 2, seed)


def linear_world():
    objective = classifier(size=POINTS, classes=CLASSES, features=WIDTH, module=head())
    return objective, Learner.fresh(objective.network, torch.device("cpu"))


def gradient_by_hand(w, x, y):
    """Of softmax regression: (p - onehot) (x, 1)', written without autograd. w is weight rows, then biases."""
    weight, bias = w[: CLASSES * WIDTH].view(CLASSES, WIDTH), w[CLASSES * WIDTH :]
    slope = torch.softmax(x @ weight.T + bias, dim=1) - torch.eye(CLASSES, dtype=x.dtype)[y]
    return torch.cat([(slope.T @ x / len(x)).flatten(), slope.mean(dim=0)])


def hessian_by_hand(w, x):
    """Mean over points of (diag(p) - pp') kron (x, 1)(x, 1)', put into the order weights, biases."""
    weight, bias = w[: CLASSES * WIDTH].view(CLASSES, WIDTH), w[CLASSES * WIDTH :]
    p = torch.softmax(x @ weight.T + bias, dim=1)
    longer = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    total = sum(
        torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(z, z)) for q, z in zip(p, longer, strict=True)
    ) / len(x)
    place = torch.arange(CLASSES * (WIDTH + 1)).view(CLASSES, WIDTH + 1)
    order = torch.cat([place[:, :WIDTH].flatten(), place[:, WIDTH]])
    return total[order][:, order]


def test_sigma_of_the_head_is_that_of_the_closed_form():
    objective, at = linear_world()
    sample = Sample(torch.arange(POINTS), True, 8, 512)
    truth = hessian_by_hand(at.weights, objective.split.inputs)
    operator = hessian_at(objective, at, sample)
    torch.testing.assert_close(dense(operator, at.weights), truth, rtol=1e-10, atol=1e-12)
    start = torch.randn(len(at.weights), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = Lanczos("lanczos", 1e-10, 40)(operator, start)
    assert sigma_of(found.value, "largest_magnitude") == pytest.approx(
        torch.linalg.eigvalsh(truth)[-1].item(), abs=1e-6
    )


def test_single_gradient_v_and_e_of_the_head_by_hand():
    lr, batch = 0.3, 4
    objective, m = linear_world()
    m_prime = Learner.start(m.weights, m.buffers)
    plan = recipe(objective, lr=lr, batch_size=batch, epochs=2, order="as_stored", forget=tuple(range(batch)), unit=0)
    recording = Recording.start(plan, m, frozenset({"initial_gradient"}), 5)
    for step in train(plan, [m], [m_prime]):
        recording.observe(step, m)
    found = SingleGradient("single_gradient", "initial", "plain").unlearn(Trained(plan, m, m_prime, recording, 0))

    x, y = objective.split.inputs, objective.split.labels
    w_0 = recording.initial.weights
    w, w_prime, sigmas = w_0.clone(), w_0.clone(), []
    for _ in range(2):
        for first in range(0, POINTS, batch):
            rows = slice(first, first + batch)
            w = w - lr * gradient_by_hand(w, x[rows], y[rows])
            if first:
                w_prime = w_prime - lr * gradient_by_hand(w_prime, x[rows], y[rows])
            sigmas.append(torch.linalg.eigvalsh(hessian_by_hand(w, x))[-1].item())
    unlearned = w + 2 * lr * gradient_by_hand(w_0, x[:batch], y[:batch])
    torch.testing.assert_close(found.weights, unlearned, rtol=1e-12, atol=1e-14)
    v = (unlearned - w_prime).norm().item()
    assert distance(found.weights, m_prime.weights).item() == pytest.approx(v, rel=1e-10)
    steps, sigma = 2 * POINTS // batch, sum(sigmas) / len(sigmas)
    truth = lr * (w - w_0).norm().item() / steps * sum(range(steps)) * sigma
    moved = distance(m.weights, w_0).item()
    assert unlearning_error_unrolled(lr, steps, moved, sigma) == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_every_kind_of_weight_has_a_gradient(folder, pooling):
    module = built(finetune(folder, pooling))
    tokens = torch.tensor([[2, 5, 6, 7, 3, 0], [2, 9, 10, 3, 0, 0]])
    module(tokens).square().sum().backward()
    assert all(p.requires_grad for p in module.parameters())
    # a key's bias shifts all scores of a query alike, which softmax does not see
    flat = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert flat == []
    assert Network.of(module).initial_buffers() == {}


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_hessian_vector_products_of_the_transformer_are_finite_differences(folder, pooling):
    tokens = torch.tensor([[2, 5, 6, 7, 3, 0], [2, 9, 10, 3, 0, 0], [2, 11, 8, 13, 12, 3]])
    network = Network.of(built(finetune(folder, pooling)).double())
    labels = torch.tensor([0, 1, 1])

    def gradient(weights, graph=False):
        weights = weights if weights.requires_grad else weights.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(network.logits(weights, {}, tokens, train=True), labels)
        return torch.autograd.grad(loss, weights, create_graph=graph)[0]

    weights = network.initial_weights()
    direction = torch.randn(len(weights), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    nudge = 1e-7 * direction  # LayerNorm on embeddings of size 0.02 bends fast
    expected = (gradient(weights + nudge) - gradient(weights - nudge)) / 2e-7
    point = weights.clone().requires_grad_()
    (product,) = torch.autograd.grad(gradient(point, graph=True), point, direction)
    assert product.norm() > 1e-3
    torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-6)


def test_the_start_is_the_encoder_and_a_seeded_layer(folder):
    spec = finetune(folder)
    before = torch.get_rng_state()
    first, second, other = built(spec), built(spec), built(spec, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    encoders = [dict(m.encoder.named_parameters()) for m in (first, other)]
    assert all(torch.equal(encoders[0][name], encoders[1][name]) for name in encoders[0])
    assert first.training
    assert first.encoder.encoder.training


def test_dropout_is_set_everywhere_or_left_to_the_encoder(folder):
    def rates(spec):
        return {rate for m in built(spec).encoder.modules() for rate in dropout_rates(m).values()}

    assert rates(finetune(folder, dropout=0.3)) == {0.3}
    assert rates(finetune(folder, dropout=None)) == {0.1}
    assert built(finetune(folder, head_dropout=0.2)).dropout.p == 0.2


def test_settings_are_checked(folder):
    with pytest.raises(UserError, match=r"model\.pooling=max: choose one of pooler, cls, mean"):
        finetune(folder, pooling="max")
    with pytest.raises(UserError, match=r"model\.dropout=1\.0"):
        finetune(folder, dropout=1.0)
    with pytest.raises(UserError, match=r"model\.max_length=2: must be at least 3"):
        TextLinear("x", None, "minilm", "mean", 2, True, 8)
    with pytest.raises(UserError, match=r"model\.batch_size=0"):
        TextLinear("x", None, "minilm", "mean", 16, True, 0)
    with pytest.raises(UserError, match=r"model\.max_length=17: .* takes at most 16 tokens"):
        TextLinear("x", None, str(folder), "mean", 17, True, 8).folder()
