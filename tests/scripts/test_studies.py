"""The arithmetic of the studies behind docs/krylov.md and docs/fused.md, on made-up numbers."""

import sys

import fused_bench
import krylov_study
import pandas as pd
import pytest

from unlearn.values.errors import UserError


def test_ranks_are_compared_within_a_rate_and_a_step_and_sizes_over_all():
    """Within each (lr, step) e ranks as v; pooled it ranks the other way, since a rate's e falls where its v rises."""
    rows = [
        {"lr": lr, "step": step, "run": run, "verification_error": v, "unlearning_error_krylov": v / 2}
        for place, (lr, step) in enumerate([(0.1, 1), (0.1, 2), (0.2, 1)])
        for run in range(4)
        for v in [10.0 ** (place + run / 10)]
    ]
    table = pd.DataFrame(rows)
    table["unlearning_error_paper"] = (
        table.verification_error / table.groupby(["lr", "step"]).verification_error.transform("sum") ** 2
    )
    table["correction_size"] = -table.verification_error
    table["noop_distance"], table["predicted_noop_distance"] = 3.0 * table.run + 3, table.run + 1.0
    table["krylov_flags"] = [None, "growth"] * 6
    found = krylov_study.row("made up", table)
    assert found["n"] == 12
    assert found["rho krylov"] == found["rho e_paper"] == pytest.approx(1)
    assert found["rho null"] == pytest.approx(-1)
    assert found["v / e_krylov"] == "2.00 [2.00, 2.00]"
    assert found["no-op / forecast"] == "3.00 [3.00, 3.00]"
    assert found["flagged"] == "50 %"
    assert table.verification_error.corr(table.unlearning_error_paper, method="spearman") < 0  # else this shows nothing


def test_a_fused_sweep_is_compared_with_as_many_separate_runs(monkeypatch, capsys):
    monkeypatch.setattr(fused_bench, "separate", lambda some, folder: [(3.0, 2.0)] * len(some))
    monkeypatch.setattr(fused_bench, "fused", lambda some, folder: (12.0, 4.0))
    monkeypatch.setattr(sys, "argv", ["fused_bench.py", "--points", "8", "--separate", "2", "--rounds", "1"])
    fused_bench.main()
    told = capsys.readouterr().out
    assert (
        "8 points: alone 3.00 s each (2.00 of CPU), fused 12.00 s in all (4.00 of CPU), ratio 2.00 (of CPU 4.00)"
        in told
    )


def test_points_that_do_not_fuse_are_no_fused_sweep(tmp_path):
    some = fused_bench.configs(4, ["arithmetic=bf16"])
    with pytest.raises(UserError, match="not all points fuse"):
        fused_bench.fused(some, tmp_path)
