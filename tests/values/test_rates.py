import pytest

from unlearn.values.errors import UserError
from unlearn.values.rates import LearningRate


def test_shapes_over_a_hundred_steps():
    def rates(decay):
        return [LearningRate(0.1, decay, 100).at(step) for step in range(101)]

    assert set(rates("constant")) == {0.1}
    cosine, step, linear = rates("cosine"), rates("step"), rates("linear")
    assert cosine[0] == 0.1
    assert cosine[50] == pytest.approx(0.05)
    assert cosine[100] == pytest.approx(0, abs=1e-12)
    assert [step[0], step[49], step[50], step[74], step[75]] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    assert linear[25] == pytest.approx(0.075)


@pytest.mark.parametrize("lr", [0, -1, float("nan"), float("inf")])
def test_a_rate_must_be_positive_and_finite(lr):
    with pytest.raises(UserError, match="lr="):
        LearningRate(lr)


def test_an_unknown_decay_names_the_known_ones():
    with pytest.raises(UserError, match="cosine"):
        LearningRate(0.1, "cosin")
