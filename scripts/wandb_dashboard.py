"""The comparison of many runs in W&B: a workspace, and a report with the same panels.

    python scripts/wandb_dashboard.py --check                   # build both, look at every key, send nothing
    python scripts/wandb_dashboard.py --publish ENTITY/PROJECT  # the account of `wandb login`; prints both addresses

Needs the extra `dashboard` (wandb-workspaces).
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from unlearn.values.errors import UserError, in_one_line
from unlearn.values.measurement import COLUMNS, ERRORS, NULL_PROXIES, SETS

METHOD = "names.method"  # of the config; where a sweep of W&B varies `method`, that hides `method.name`
MODELS = ("original", "retrained", "unlearned")
LOGGED = frozenset(
    [column.name for column in COLUMNS]
    + ["ratio", "gradient_evaluations"]
    + [f"accuracy/{model}/{part}" for model in MODELS for part in SETS]
    + [f"correlations/{name}/spearman_differences" for name in (*ERRORS, *NULL_PROXIES)]
)
# section: (title, kind, x, y), x and y keys of the summary, or of the config after "config:"; a line's are columns
Panel = tuple[str, str, str, tuple[str, ...]]
PANELS: dict[str, list[Panel]] = {
    "v against e": [
        *(
            (f"v against {name.removeprefix('unlearning_error_')}", "scatter", name, ("verification_error",))
            for name in ERRORS
        ),
        ("v against the step count, which needs no theory", "scatter", "step", ("verification_error",)),
    ],
    "v against gamma": [
        ("v", "scatter", "config:penalty.gamma", ("verification_error",)),
        ("v / no-op", "scatter", "config:penalty.gamma", ("ratio",)),
        ("sigma", "scatter", "config:penalty.gamma", ("sigma",)),
    ],
    "method against no-op": [
        ("v / no-op: below 1 unlearning helped", "bar", METHOD, ("ratio",)),
        ("v over the steps", "line", "step", ("verification_error", "noop_distance")),
        ("gradients of single points that the request cost", "bar", METHOD, ("gradient_evaluations",)),
    ],
    "accuracies": [
        (f"accuracy, {part} set", "bar", METHOD, tuple(f"accuracy/{model}/{part}" for model in MODELS)) for part in SETS
    ],
    "forecast against no-op": [
        ("no-op against its forecast", "scatter", "predicted_noop_distance", ("noop_distance",)),
        ("both over the steps", "line", "step", ("noop_distance", "predicted_noop_distance")),
    ],
}


def unknown() -> set[str]:
    """Give the keys of the panels that no run logs."""
    found = {key for panels in PANELS.values() for _, _, x, y in panels for key in (x, *y)}
    return {key for key in found if not key.startswith("config:") and key != METHOD} - LOGGED


COMPLETED = "SummaryMetric('status') = 'completed'"  # one that diverged has v of another step than e


def build(entity: str, project: str) -> tuple[Any, Any]:
    """Make workspace and report; nothing is sent.

    Raises:
        UserError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UserError("wandb-workspaces is not installed; pip install -e '.[dashboard]' in the clone") from error

    def axis(key: str) -> Any:
        name = key.removeprefix("config:")
        return reports.SummaryMetric(key) if name == key else reports.Config(name)

    def panel(title: str, kind: str, x: str, y: tuple[str, ...]) -> Any:
        if kind == "line":
            return reports.LinePlot(title=title, x=x, y=list(y), groupby=METHOD, groupby_rangefunc="stderr")
        if kind == "bar":
            over = reports.Config(METHOD)
            return reports.BarPlot(title=title, metrics=list(y), groupby=over, groupby_rangefunc="stderr")
        return reports.ScatterPlot(title=title, x=axis(x), y=axis(y[0]))

    def panels(section: str) -> Iterator[Any]:
        return (panel(*settings) for settings in PANELS[section])

    sections = [workspaces.Section(name=name, panels=list(panels(name)), is_open=True) for name in PANELS]
    workspace = workspaces.Workspace(
        entity=entity,
        project=project,
        name="Unlearning: comparison",
        sections=sections,
        runset_settings=workspaces.RunsetSettings(filters=COMPLETED),
    )
    blocks: list[Any] = []
    for name in PANELS:
        runs = reports.Runset(entity=entity, project=project, name="completed runs", filters=COMPLETED)
        blocks += [reports.H2(name), reports.PanelGrid(runsets=[runs], panels=list(panels(name)))]
    report = reports.Report(
        entity=entity,
        project=project,
        title="How far from retraining?",
        description="v: distance to the retrained weights. e: proxies of it. No-op: the distance of doing nothing.",
        blocks=blocks,
    )
    return workspace, report


def check() -> int:
    """Build both as they would be sent; gives the number of panels.

    Raises:
        UserError: a panel shows what no run logs, or wandb-workspaces is not installed.
    """
    strange = unknown()
    if strange:
        raise UserError(f"{sorted(strange)[0]}: no run logs it; see docs/outputs.md")
    workspace, report = build("entity", "project")
    # what publishing would send, by names that the library keeps to itself; a report's run sets would want a login
    grids = [panel for block in report.blocks for panel in getattr(block, "panels", [])]
    sent = [workspace._to_model().model_dump_json(), "".join(panel._to_model().model_dump_json() for panel in grids)]
    titles = [title for panels in PANELS.values() for title, *_ in panels]
    for name, text in zip(("workspace", "report"), sent, strict=True):
        lacking = [title for title in titles if json.dumps(title)[1:-1] not in text]
        if lacking:
            raise UserError(f"the {name} lacks the panel {lacking[0]!r}; use the locked wandb-workspaces")
    return len(titles)


def publish(place: str) -> list[str]:
    """Send both; gives their addresses.

    Raises:
        UserError: `place` is not ENTITY/PROJECT, nobody is logged in, or the server did not take them.
    """
    entity, _, project = place.partition("/")
    if not entity or not project or "/" in project:
        raise UserError(f"--publish {place}: must be ENTITY/PROJECT")
    workspace, report = build(entity, project)
    import wandb

    if not wandb.login(prompt=False):
        raise UserError("nobody is logged in: run `wandb login`, or set WANDB_API_KEY")
    try:
        return [part.save().url for part in (workspace, report)]
    except Exception as error:  # whatever server and library raise, said in one line
        raise UserError(f"the server did not take it ({type(error).__name__}: {in_one_line(error)})") from error


def main() -> int:
    """Check or publish, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="build both and send nothing")
    what.add_argument("--publish", metavar="ENTITY/PROJECT")
    arguments = parser.parse_args()
    try:
        if arguments.publish:
            print("\n".join(publish(arguments.publish)))
        else:
            print(f"workspace and report hold {check()} panels each; every key is one that runs log")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
