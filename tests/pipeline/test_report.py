from pathlib import Path

import pytest

from unlearn.pipeline.report import labels, verdict

NAMES = {"dataset": "digits", "model": "mlp", "method": "none"}


def test_a_sweep_is_one_group_also_one_of_wandbs_agent(monkeypatch):
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert labels(NAMES, Path("sweeps/mine/seed=0"))["group"] == "mine"
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert labels(NAMES, Path("runs/2026"))["group"] == "abc"


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (0.5, "M'' is 2 times closer to M' than M is."),
        (1.8, "M'' is 1.8 times as far from M' as M is: unlearning did not help."),
        (0.0, "M'' is M'."),
    ],
)
def test_what_a_ratio_means(ratio, told):
    assert verdict({"ratio": ratio}) == told
