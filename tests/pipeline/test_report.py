from pathlib import Path

from unlearn.pipeline.report import labels

NAMES = {"dataset": "digits", "model": "mlp", "method": "none"}


def test_a_sweep_is_one_group_also_one_of_wandbs_agent(monkeypatch):
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert labels(NAMES, Path("sweeps/mine/seed=0"))["group"] == "mine"
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert labels(NAMES, Path("runs/2026"))["group"] == "abc"
