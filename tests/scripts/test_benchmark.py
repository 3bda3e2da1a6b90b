"""The benchmark on tiny problems: equal numbers and a file that agrees with itself. No test here looks at a time."""

import io
import json
import os
import subprocess
import sys
from statistics import median

import benchmark
import pytest
import torch
from bench import reference, report, sigma
from bench.floor import against_floor
from bench.ours import last_two, measured, peak_mb, ready, state, tight
from bench.sigma import one_sigma
from bench.step import SCRIPTS, checked_steps
from bench.throughput import throughput
from bench.tracking import growth, needed, products
from bench.worlds import REFERENCE, digits

from unlearn.values.errors import UserError

SMALL = ("dataset.train_size=96", "measure.hessian_samples=32")
CNN = digits("cnn", "model.widths=[4,8]", "model.norm=batch", "model.activation=tanh", *SMALL)
MOMENTUM = ("optimizer.momentum=0.9", "optimizer.weight_decay=5e-4")

# a made-up script with the lines that the marks go by
SCRIPT = """
for step in range(2):
    for once in range(1):
        M.train()
        found = trainset_list[:512]
        M.eval()
        #Now, save the weights of both
        #Now, get M''
        M_unlearned_tensor = 1
        #print('rolling unlearning error is ', 0)
"""


@pytest.mark.parametrize("settings", [("optimizer.momentum=0",), MOMENTUM])
def test_a_plain_torch_loop_ends_in_the_same_weights(settings):
    found = against_floor(CNN, 2, 3, "conventions=faithful", *settings)
    assert found["weights_differ"] == 0
    assert found["steps"] == 6
    assert len(found["seconds"]["ours"]) == len(found["seconds"]["plain"]) == 2


def test_every_way_finds_the_same_sigma():
    found = one_sigma(CNN, 3, 32, 1)
    assert found["exact"] > 0
    for name, way in found["ways"].items():
        loose = "power" in name or "eigenthings" in name  # neither stops on an estimate of its error
        assert way["error"] < (2e-2 if loose else 1e-3), name
        assert way["products"] >= 1
    assert found["ways"]["ours, from the step before"]["products"] < found["ways"]["ours, cold Lanczos"]["products"]


def test_every_round_starts_from_the_step_before(monkeypatch):
    counts = []

    class Counting(sigma.Tracker):
        def __call__(self, operator, probe):
            found = super().__call__(operator, probe)
            counts.append(found.products)
            return found

    monkeypatch.setattr(sigma, "Tracker", Counting)
    monkeypatch.setattr(sigma, "curvlinops", lambda prepared, at: (1.0, 1))
    one_sigma(digits("cnn", "model.widths=[4,8]", *SMALL, "optimizer.lr=0.5"), 3, 32, 3)
    _, *warm = counts  # yesterday's own search, then one a round
    assert len(warm) == 3
    assert warm[0] > 1  # of today's own leader one would be enough
    assert set(warm) == {warm[0]}


def test_operations_are_those_of_the_layers_and_the_share_follows_from_them():
    linear = digits("linear", "dataset.train_size=96", "training.batch_size=32", "measure.hessian_samples=32")
    found = throughput(linear, 2, "float32")
    # 64 x 10 weights: 2 operations a weight and point forth, as many back; the inputs need no gradient; M and M'
    assert found["operations"] == 2 * (2 * 2 * 64 * 10 * 32)
    assert found["matrix_rate"] > 0
    text = report.markdown({"throughput": [found]})
    share = 100 * found["operations"] / median(found["seconds"]["ours"]) / found["matrix_rate"]
    assert f"{share:.1f}" in text


def test_parts_of_a_measured_step_add_up():
    rows = list(measured(ready(CNN, 3, *REFERENCE)))
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert set(row["parts"]) == set(report.PARTS)
        assert sum(row["parts"].values()) == pytest.approx(row["seconds"])


def test_the_file_holds_what_the_tables_say(tmp_path, capsys):
    parts = ["step", "floor", "products"]
    given = ["--config", "tiny", "--model", "linear", "--parts", *parts, "--markdown", "--out", str(tmp_path)]
    returned = benchmark.main(given)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {"machine", "settings", *parts} == set(found) == set(returned)
    assert found["machine"]["torch"] == torch.__version__
    rows = found["step"]["rows"]["ours"]
    assert len(rows) == 2
    assert max(found["step"]["equal"].values()) < 1e-3
    text = (tmp_path / "bench.md").read_text()
    for row in found["floor"]:
        ours, plain = row["seconds"]["ours"], row["seconds"]["plain"]
        assert f"{median(a / b for a, b in zip(ours, plain, strict=True)):.3g}" in text
    for row in found["products"]:
        assert max(row["errors"]) < 1e-3
    assert (tmp_path / "bench.png").stat().st_size > 0
    assert "Measured step" in capsys.readouterr().out


def taken(seconds, products):
    parts = dict.fromkeys(report.PARTS, seconds / 5)
    return {"seconds": seconds, "parts": parts, "products": products, "peak_mb": 1024.0}


def test_the_table_compares_the_steps_that_both_took_and_counts_the_products_of_all():
    ours, theirs = [taken(10, 3), taken(2, 1), taken(50, 8)], [taken(20, 12), taken(20, 14)]
    found = {"rows": {"ours": ours, "reference": theirs}, "equal": {}, "exact_sigma": {}}
    found |= {
        "cut": None,
        "world": "net",
        "batch": 1,
        "images": 9,
        "samples": 2,
        "lr": 0.1,
        "threads": 1,
        "device": "cpu",
    }
    text = report.markdown({"step": found})
    assert "| a measured step, s | 6 [2, 10] | 20 [20, 20] | 6 [2, 10] |" in text
    assert "| all 2 steps, s | 12 | 40 | 3.33 |" in text
    assert "| each further product, s [95 % interval] | 0.8 [0.8, 0.8] | 0 [0, 0] |  |" in text
    assert "| products a sigma, mean of all 3 | 4.00 |" in text


def test_the_reference_takes_no_more_steps_than_ours():
    with pytest.raises(UserError, match="--beside=5 must lie between 1 and --steps=4"):
        benchmark.arguments(["--steps", "4", "--beside", "5"])
    assert benchmark.arguments(["--steps", "4"]).beside == 4


def test_the_small_network_that_was_asked_for_is_followed_once(tmp_path):
    given = ["--config", "full", "--model", "linear", "--no-small", "--samples", "32", "--row", "2", "--checks", "1"]
    found = benchmark.main([*given, "--optimizers", "sgd", "--parts", "products", "--out", str(tmp_path)])
    assert [row["world"] for row in found["products"]] == ["digits linear"]


def test_growth_leaves_the_cold_first_step_out(tmp_path, monkeypatch):
    seconds = iter([100.0, 1.0, 2.0, 3.0, 6.0])

    class Child:
        def __init__(self, *_): ...

        def close(self): ...

        def step(self):
            return {"seconds": next(seconds), "peak_mb": 5.0}

    monkeypatch.setattr("bench.tracking.Child", Child)
    found = growth(CNN, 4, tmp_path)
    assert found["seconds"] == [1.0, 2.0, 3.0, 6.0]
    assert found["second_half_over_first"] == pytest.approx(3.0)
    assert "3.00" in report.markdown({"growth": [found]})


def test_growth_is_of_the_steps_that_it_says(tmp_path):
    found = growth(CNN, 2, tmp_path)
    assert len(found["seconds"]) == len(found["peak_mb"]) == 2
    assert found["peak_mb"][0] > 0


def test_the_last_steps_are_checked_first_and_evenly(tmp_path, monkeypatch):
    read = []

    def noted(path):
        read.append(path.name)
        return state(path)

    monkeypatch.setattr("bench.tracking.state", noted)
    found = products(CNN, 4, tmp_path / "states", 2)
    assert read == ["4.pt", "2.pt"]
    assert len(found["products"]) == 4
    assert max(found["errors"]) < 1e-3
    assert checked_steps(20, 4) == {20, 15, 10, 5}
    assert checked_steps(3, 9) == {1, 2, 3}


def test_what_was_measured_before_a_part_failed_is_shown(tmp_path, monkeypatch, capsys):
    def failing(*_):
        raise UserError("the second part fails")

    monkeypatch.setattr(benchmark, "products", failing)
    given = [
        "--config",
        "tiny",
        "--model",
        "linear",
        "--parts",
        "floor",
        "products",
        "--markdown",
        "--out",
        str(tmp_path),
    ]
    with pytest.raises(UserError, match="second part"):
        benchmark.main(given)
    assert "not measured, against two plain torch steps" in capsys.readouterr().out
    assert "not measured" in (tmp_path / "bench.md").read_text()
    assert "floor" in json.loads((tmp_path / "bench.json").read_text())


def test_products_needed_are_counted_from_the_errors_and_restarts_from_nothing():
    found = needed(CNN, 3, "optimizer.lr=0.01")
    assert len(found["rows"]) == 3
    for row in found["rows"]:
        assert row["errors"][-1] == 0.0
        assert all(error <= 1e-3 for error in row["errors"][row["needed"] - 1 :])
        assert row["needed"] == 1 or row["errors"][row["needed"] - 2] > 1e-3
        assert row["residual"] < 1e-4
    assert f"{sum(row['needed'] for row in found['rows']) / 3:.2f}" in report.markdown({"needed": [found]})


def test_the_last_sigma_of_products_needed_is_that_of_a_tight_lanczos():
    found = needed(CNN, 2, "optimizer.lr=0.01")
    prepared = ready(CNN, 3, *REFERENCE, "optimizer.lr=0.01")
    assert found["rows"][-1]["sigma"] == pytest.approx(tight(prepared, last_two(prepared)[-1]), rel=1e-6)


def test_marks_stand_before_their_lines_and_leave_the_rest_alone():
    marked = reference.marked(SCRIPT, "there").splitlines()
    for start, name in reference.SECTIONS.items():
        place = next(number for number, line in enumerate(marked) if line.startswith(start))
        assert marked[place - 1].strip() == f"BENCH_MARK({name!r})"
    kept = [line for line in marked if "BENCH_MARK" not in line]
    assert "\n".join(kept).replace("BENCH_SAMPLES", "512").split() == SCRIPT.split()


def test_a_watch_takes_each_moment_once(monkeypatch, capsys):
    watch = reference.Watch(1, torch.device("cpu"))
    watch.found = {"delta_weights": 2.0, "verification_error": 0.5}
    watch.eigenvalue = -3.0
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n"))
    for name in reference.SECTIONS.values():
        watch(name)
    first, line = capsys.readouterr().out.splitlines()
    assert json.loads(first.removeprefix("bench: ")) == {}
    row = json.loads(line.removeprefix("bench: "))
    assert (row["moved"], row["v"], row["sigma"], row["step"]) == (2.0, 0.5, 3.0, 1)
    assert row["seconds"] == pytest.approx(sum(row["parts"].values()))
    with pytest.raises(reference.Finished):
        watch("train M and M'")


def checkout(folder, text=SCRIPT):
    (folder / "Unlearning").mkdir(parents=True)
    (folder / "Unlearning" / "correlation_verification.py").write_text(text)
    (folder / "ResNet_CIFAR10.py").touch()
    (folder / "PyHessian" / "pyhessian").mkdir(parents=True)
    (folder / "PyHessian" / "pyhessian" / "hessian.py").touch()
    return folder


def test_what_is_no_checkout_is_refused_in_one_line(tmp_path):
    good, other = checkout(tmp_path / "good"), checkout(tmp_path / "other", SCRIPT.replace("M.eval()", "M.other()"))
    assert benchmark.arguments(["--reference", str(good)]).pyhessian == good / "PyHessian"
    for wrong, message in (
        ([str(tmp_path)], "holds no Unlearning/correlation_verification.py"),
        ([str(good), "--pyhessian", str(tmp_path)], "holds no pyhessian/hessian.py"),
        ([str(other)], "no single line 'M.eval\\(\\)'"),
        ([str(good), "--model", "mlp"], "resnet18 alone"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            benchmark.arguments(["--reference", *wrong])
        assert "\n" not in str(caught.value)


WRONG = ("config=huge", "parts=none", "steps=1", "samples=-1", "samples=0", "row=0", "row-samples=0", "checks=0")


@pytest.mark.parametrize("wrong", [f"--{option}".split("=") for option in WRONG])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(UserError, match=f"{wrong[0]}={wrong[1]}"):
        benchmark.arguments(wrong)


def test_what_would_be_ignored_is_refused():
    with pytest.raises(UserError, match=r"--overrides pretraining.epochs=1: .* model.weights=FILE"):
        benchmark.arguments(["--overrides", "seed=1", "pretraining.epochs=1"])
    for override in ("optimizer.lr=1", "curvature=power", "model=cnn", "+measure.every=5"):
        with pytest.raises(UserError, match=r"the benchmark sets .* itself"):
            benchmark.arguments(["--overrides", override])
    benchmark.arguments(["--overrides", "optimizer.momentum=0", "model.weights=there", "curvature.tolerance=0.1"])


def test_settings_that_the_reference_has_fixed_are_refused_beside_it(tmp_path):
    beside = ["--reference", str(checkout(tmp_path / "good"))]
    with pytest.raises(UserError, match=r"sets optimizer.momentum itself"):
        benchmark.arguments([*beside, "--overrides", "optimizer.momentum=0"])
    with pytest.raises(UserError, match="--samples=513: the reference code takes 512 at most"):
        benchmark.arguments([*beside, "--samples", "513"])


def test_a_truth_that_was_not_reached_is_none(monkeypatch):
    prepared = ready(CNN, 3, *REFERENCE)
    monkeypatch.setattr("bench.ours.MOST", 2)
    with pytest.raises(UserError, match="after 2 products"):
        tight(prepared, last_two(prepared)[1])


def test_the_peak_of_a_process_is_not_that_of_the_one_that_started_it():
    held = torch.ones(100_000_000)  # 400 MB
    code = "from bench.ours import peak_mb; import torch; print(peak_mb(torch.device('cpu')))"
    ours = peak_mb(torch.device("cpu"))
    path = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert float(run.stdout.split()[-1]) < ours - held.numel() * 4 / 2**20 / 2
