import importlib
import json
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from PIL import Image

from tests.rows import row
from unlearn.figures import accuracy, correlation, errors
from unlearn.figures.run import draw
from unlearn.figures.saved import Saved, read
from unlearn.values.errors import UserError
from unlearn.values.measurement import COLUMNS, ERRORS

V, PROXY = "verification_error", "unlearning_error_unrolled"
ACCURACY = {
    "original": {"retain": 0.9, "forget": 1.0, "test": 0.8},
    "retrained": {"retain": 0.9, "forget": 0.5, "test": 0.8},
    "unlearned": {"retain": 0.7, "forget": 0.6, "test": 0.0},
}


def steps(n: int = 12, **changed) -> pd.DataFrame:
    """A run whose v grows as the root of t and whose errors grow as its square."""
    rows = [
        asdict(
            row(
                step=t,
                noop_distance=0.05,
                verification_error=t**0.5,
                unlearning_error_paper=t**2,
                unlearning_error_code=t**2,
                unlearning_error_code_mean=t**2,
                unlearning_error_unrolled=t**2 * 10.0,
                unlearning_error_krylov=t**0.5 * 0.9,
                predicted_noop_distance=0.04,
                krylov_flags="growth+batchnorm" if t % 2 else None,
            )
        )
        for t in range(1, n + 1)
    ]
    return pd.DataFrame(rows, columns=[column.name for column in COLUMNS]).assign(**changed)


def write(folder, table, summary=None):
    table.to_csv(folder / "steps.csv", index=False)
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def no_errors(value=np.nan):
    return dict.fromkeys((*ERRORS, "predicted_noop_distance", "sigma"), value)


def texts(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def curves(figure):
    return {line.get_label().split("\n")[0]: line for line in figure.axes[0].get_lines()}


def test_the_curves_are_the_columns_and_v_is_the_thickest():
    table = steps()
    drawn = curves(errors.draw(Saved(table, {})))
    assert drawn["v, verification error"].get_ydata() == pytest.approx(table[V].to_numpy())
    assert drawn["e, unrolled"].get_ydata() == pytest.approx(table[PROXY].to_numpy())
    assert list(drawn["no-op distance"].get_xdata()) == list(range(1, 13))
    assert len(drawn) == 3 + len(ERRORS)
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in drawn.values()}) == len(drawn)
    widths = {label: line.get_linewidth() for label, line in drawn.items()}
    assert max(widths, key=widths.__getitem__) == "v, verification error"


def test_the_axis_is_logarithmic_only_where_the_values_differ_much():
    near = steps(noop_distance=1.0, **no_errors(2.0))
    assert errors.draw(Saved(near, {})).axes[0].get_yscale() == "linear"
    assert errors.draw(Saved(steps(), {})).axes[0].get_yscale() == "log"


def test_a_logarithm_has_no_zero_so_the_legend_counts_them():
    table = steps()
    table.loc[:2, V] = 0
    figure = errors.draw(Saved(table, {}))
    assert "v, verification error\n(0 at 3 of 12, not shown)" in texts(figure)
    assert len(curves(figure)["v, verification error"].get_xdata()) == 9


def test_a_root_of_sigma_makes_no_weight():
    found = texts(errors.draw(Saved(steps(), {}, rooted=True)))
    assert found.index("e, unrolled") > found.index("in other units")
    assert correlation.draw(Saved(steps(), {}, rooted=True)).axes[0].get_xlabel() == "e, unrolled"


@pytest.mark.parametrize(("kind", "rooted"), [("sqrt_signed", True), ("largest_magnitude", False), (None, False)])
def test_what_sigma_is_stands_in_the_config(tmp_path, kind, rooted):
    steps().to_csv(tmp_path / "steps.csv", index=False)
    if kind is not None:
        (tmp_path / "config.yaml").write_text(f"measure: {{sigma: {kind}}}\n")
    assert read(tmp_path).rooted is rooted


def test_the_legend_groups_by_unit_in_the_order_in_which_the_curves_end():
    assert texts(errors.draw(Saved(steps(), {})))[:7] == [
        "in weight units",
        "e, unrolled",
        "v, verification error",
        "e, krylov",
        "no-op distance",
        "no-op distance, predicted",
        "in other units",
    ]


def test_each_correlation_title_states_the_summary_s_rho():
    table = steps()
    table["visits"] = [0] + [1] * 11
    table.loc[11, V] = np.nan
    summary = {"correlations": {PROXY: {"spearman": 0.75, "n": 10}, "step": {"spearman": 1.0, "n": 10}}}
    left, right, bar = correlation.draw(Saved(table, summary)).axes
    assert left.get_title().endswith("0.750, n = 10")
    assert right.get_title().endswith("1.000, n = 10")
    assert np.asarray(left.collections[0].get_offsets()) == pytest.approx(table[[PROXY, V]][1:11].to_numpy())
    assert bar.get_ylabel() == "t (steps)"


@pytest.mark.parametrize("summary", [{}, {"correlations": {PROXY: {"spearman": None, "n": 12}}}])
def test_without_a_rho_a_title_counts_its_points(summary):
    left, right, _ = correlation.draw(Saved(steps(), summary)).axes
    assert left.get_title().endswith("\nn = 12")
    assert right.get_title().endswith("\nn = 12")


def test_correlation_axes_are_log_where_all_is_positive():
    table = steps()
    assert {axes.get_xscale() for axes in correlation.draw(Saved(table, {})).axes[:2]} == {"log"}
    table.loc[0, PROXY] = 0
    assert {axes.get_yscale() for axes in correlation.draw(Saved(table, {})).axes[:2]} == {"linear"}


def test_a_row_that_was_cut_off_is_not_drawn(tmp_path):
    steps().to_csv(tmp_path / "steps.csv", index=False)
    whole = (tmp_path / "steps.csv").read_text()
    (tmp_path / "steps.csv").write_text(whole[: whole.rstrip("\n").rindex(".") + 2])  # in the midst of a number
    assert read(tmp_path).steps.step.tolist() == list(range(1, 12))


def test_bars_are_percentages_and_empty_sets_are_left_out():
    summary = {"accuracy": {model: {**sets, "forget": None} for model, sets in ACCURACY.items()}}
    (axes,) = accuracy.draw(Saved(steps(), summary)).axes
    heights = [[bar.get_height() for bar in group] for group in axes.containers]
    assert heights == [pytest.approx([90, 80]), pytest.approx([90, 80]), pytest.approx([70, 0])]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["retain set", "test set"]
    assert [text.get_text() for text in axes.texts][-2:] == ["70.0", "0.0"]


EMPTY = {model: dict.fromkeys(sets) for model, sets in ACCURACY.items()}
ALL = ["errors", "correlation", "accuracy"]


@pytest.mark.parametrize(
    ("table", "summary", "expected"),
    [
        (steps(), {"accuracy": ACCURACY}, ALL),
        (steps(1), {"accuracy": ACCURACY}, ["errors", "accuracy"]),
        (steps(2), {"accuracy": {**ACCURACY, "unlearned": None}}, ALL),
        (steps(0), None, []),
        (steps(), None, ["errors", "correlation"]),
        (steps(verification_error=[np.nan] * 11 + [1.0]), {"accuracy": EMPTY}, ["errors"]),
        (steps(verification_error=0.0), {}, ["errors"]),
        (steps(verification_error=0.0, noop_distance=0.0, **no_errors()), {}, ["errors"]),
        (steps(verification_error=np.nan, **no_errors()), {"accuracy": None}, []),
        (steps(**no_errors()), {}, ["errors"]),
        (steps(verification_error=[1.0] * 11 + [np.inf]), {}, ["errors"]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_has_nothing_to_show_is_left_out(tmp_path, table, summary, expected):
    written = draw(write(tmp_path, table, summary))
    assert written == [tmp_path / "figures" / f"{name}.png" for name in expected]
    for path in written:
        with Image.open(path) as image:
            assert round(image.info["dpi"][0]) == 150
            assert len(image.convert("L").getcolors(256)) > 2


def test_equal_data_give_equal_bytes(tmp_path):
    folder = write(tmp_path, steps(), {"accuracy": ACCURACY})
    first = [path.read_bytes() for path in draw(folder)]
    assert [path.read_bytes() for path in draw(folder)] == first


def test_drawing_leaves_no_global_figure(tmp_path):
    draw(write(tmp_path, steps()))
    assert pyplot.get_fignums() == []


def test_the_command_draws_several_runs_and_names_the_files(tmp_path, capsys):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write(folder, steps())
    main = importlib.import_module("unlearn.figures.__main__").main
    assert main([str(folder) for folder in folders]) == 0
    expected = [str(folder / "figures" / f"{name}.png") for folder in folders for name in ("errors", "correlation")]
    assert capsys.readouterr().out.splitlines() == expected


def test_the_command_refuses_a_folder_that_is_no_run_in_one_line(tmp_path, capsys):
    main = importlib.import_module("unlearn.figures.__main__").main
    assert main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {tmp_path}: holds no run (no steps.csv); give the folder that a run wrote"


@pytest.mark.parametrize(
    ("rows", "summary", "message"),
    [
        ("step,epoch\n1,0\n", "{}", "steps.csv lacks lr, "),
        ("", "{}", r"cannot be read \(No columns"),
        ("step,epoch\n1,zero\n", "{}", r"cannot be read \(could not convert"),
        (steps().to_csv(index=False), "{", r"cannot be read \(Expecting"),
        (steps().to_csv(index=False), "[]", "summary.json holds no mapping"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, rows, summary, message):
    (tmp_path / "steps.csv").write_text(rows)
    (tmp_path / "summary.json").write_text(summary)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_figures_that_cannot_be_written_are_one_line(tmp_path):
    (write(tmp_path, steps()) / "figures").write_text("a file in the way")
    with pytest.raises(UserError, match="figures: cannot be written"):
        draw(tmp_path)


def test_a_short_logarithmic_axis_has_labels_that_do_not_touch():
    figure = correlation.draw(Saved(steps(8), {}))
    right = figure.axes[1]
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in right.get_xticklabels(which="both") if label.get_text()]
    inside = sorted((box.x0, box.x1) for box in boxes)
    assert len(inside) >= 3
    assert all(before[1] < after[0] for before, after in pairwise(inside))
