import pytest
from rich.console import Console
from scipy import stats

from unlearn.results.collect import collect
from unlearn.results.table import Interval, headline, interval, settings, show, summarise


def test_the_interval_is_scipys(point, tmp_path):
    values = (0.1, 0.2, 0.4)
    for seed, v in enumerate(values):
        point(f"{seed}", v=v, seed=seed)
    found = summarise(collect(tmp_path)).iloc[0]
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert found["n"] == 3
    assert found["v"].mean == pytest.approx((low + high) / 2)
    assert found["v"].half == pytest.approx((high - low) / 2)
    assert found["test M'', %"].mean == pytest.approx(70)
    assert found["M'' - M', %"].mean == pytest.approx(-10)


def test_what_did_not_complete_is_counted_and_never_averaged(point, tmp_path):
    point("0", v=0.5, seed=0)
    point("1", v=100.0, seed=1, status="diverged")
    point("2", v=100.0, seed=2, failed="broken")
    point("3", v=None, seed=3)
    found = summarise(collect(tmp_path)).iloc[0]
    assert found["v"] == Interval(1, 0.5, None)
    assert (found["n"], found["diverged"], found["failed"], found["unfinished"]) == (1, 1, 1, 1)


def test_a_repeated_seed_does_not_narrow_the_interval(point, tmp_path):
    for again in range(4):
        point(f"a{again}", v=1.0, seed=0)
        point(f"b{again}", v=3.0, seed=1)
    found = summarise(collect(tmp_path)).iloc[0]
    assert found["n"] == 2
    assert found["v"] == pytest.approx(interval(collect(tmp_path).table.verification_error.iloc[[0, 4]]))


def test_groups_are_settings_without_seed_and_logger(point, tmp_path):
    for seed in (0, 1):
        for gamma in (0.0, 1.0):
            for method, chosen in (("krylov", {"products": 5}), ("finetune", {"epochs": 1})):
                name = f"{method}{gamma}{seed}"
                point(name, v=gamma, seed=seed, gamma=gamma, method=method, settings=chosen, logger={"name": name})
    found = collect(tmp_path)
    assert {"method._target_", "method.epochs", "method.products", "logger.name"} < set(found.varied)
    assert settings(found) == ["method.name", "penalty.gamma"]
    means = summarise(found)
    assert means[["method.name", "penalty.gamma", "n"]].to_numpy().tolist() == [
        ["finetune", 0.0, 2], ["finetune", 1.0, 2], ["krylov", 0.0, 2], ["krylov", 1.0, 2],
    ]  # fmt: skip
    assert [cell.mean for cell in means["v"]] == [0.0, 1.0, 0.0, 1.0]


def test_how_runs_are_drawn_and_kept_is_no_setting(point, tmp_path):
    for seed in range(4):
        point(str(seed), seed=seed, figures=seed < 2, store={"enabled": seed > 2}, checkpoint={"minutes": seed})
    assert settings(collect(tmp_path)) == []
    assert summarise(collect(tmp_path))["n"].tolist() == [4]


def test_methods_that_differ_in_one_setting_stay_apart(point, tmp_path):
    point("0", method="finetune", settings={"epochs": 1})
    point("1", method="finetune", settings={"epochs": 2})
    point("2", method="krylov")
    assert len(summarise(collect(tmp_path))) == 3


def test_the_headline_error_of_each_run_stands_in_the_column(point, tmp_path):
    point("0", conventions={"headline_error": "paper"})
    found = collect(tmp_path)
    assert headline(found) == "paper"
    assert summarise(found).iloc[0]["e"].mean == 0.5
    point("1", conventions={"headline_error": "krylov"})
    assert [cell.mean for cell in summarise(collect(tmp_path))["e"]] == [0.12, 0.5]


def test_a_sweep_in_which_nothing_completed_has_a_table(point, tmp_path):
    point("0", v=None, gamma=1.0)
    point("1", v=None, gamma=2.0, failed="broken")
    found = collect(tmp_path)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(show(summarise(found), headline(found)))
    assert captured.get().count(" - ") >= 2 * 6


def test_fewer_values_than_seeds_are_told(point, tmp_path):
    (point("0", seed=0) / "summary.json").write_text('{"status": "completed", "ratio": null, "noop_distance": 0.0}')
    point("1", seed=1)
    found = collect(tmp_path)
    console = Console(width=300)
    with console.capture() as captured:
        console.print(show(summarise(found), headline(found)))
    assert "0.5 ± - (n=1)" in captured.get()
