"""Tables and figure from what was measured, and from that alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy import stats

from unlearn.figures.style import BLUE, GREEN, ORANGE, PURPLE, VERMILLION, blank, tidy

PARTS = {"train M and M'": BLUE, "sigma": VERMILLION, "forecast": PURPLE, "M''": ORANGE, "distances and rest": GREEN}
NEEDED = (1, 2, 4, 8)  # products after which the error is shown


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: one line.
        head: names of the columns; the first holds words, the others numbers.
        rows: as text.
    """

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def spread(values: list[float], form: str = "{:.3g}") -> str:
    """Give median and range."""
    if len(values) == 1:
        return form.format(values[0])
    return f"{form} [{form}, {form}]".format(median(values), min(values), max(values))


def ratio(values: list[float], to: list[float]) -> str:
    """Give the median of the ratios of what was timed in turn, with its range."""
    return spread([a / b for a, b in zip(values, to, strict=True)])


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Make all tables, of the parts that were run."""
    makers: dict[str, Callable[[Any], list[Sheet]]] = {
        "step": _step,
        "sigma": _sigma,
        "floor": _floor,
        "products": _products,
        "growth": _growth,
        "needed": _needed,
        "throughput": _throughput,
    }
    return [sheet for name, maker in makers.items() if name in found for sheet in maker(found[name])]


def _shared(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Give the rows of the steps that both sides took."""
    n = min(len(taken) for taken in found["rows"].values())
    return {name: taken[:n] for name, taken in found["rows"].items()}


def _each_product(rows: list[dict[str, Any]]) -> str:
    """Give by how many seconds a sigma grows with a product more: the Theil-Sen slope."""
    products, seconds = [row["products"] for row in rows], [row["parts"]["sigma"] for row in rows]
    if len(set(products)) == 1:
        return ""
    slope, _, low, high = stats.theilslopes(seconds, products)
    return f"{slope:.3g} [{low:.3g}, {high:.3g}]"


def _step(found: dict[str, Any]) -> list[Sheet]:
    rows, alone = _shared(found), [row["products"] for row in found["rows"]["ours"]]
    names, n = list(rows), len(rows["ours"])
    both = len(names) > 1
    lines = []
    for part in (*PARTS, "a measured step"):
        seconds = {
            name: [row["seconds"] if part not in PARTS else row["parts"].get(part, 0.0) for row in rows[name]]
            for name in names
        }
        if part == "forecast" and not any(map(any, seconds.values())):  # left out, as in the reference
            continue
        cells = [spread(seconds[name]) for name in names]
        lines.append((f"{part}, s", *cells, *([ratio(seconds["reference"], seconds["ours"])] if both else [])))
    total = {name: sum(row["seconds"] for row in rows[name]) for name in names}
    whole = [f"{total['reference'] / total['ours']:.3g}"] if both else []
    lines.append((f"all {n} steps, s", *(f"{total[name]:.4g}" for name in names), *whole))
    spent = {name: [row["products"] for row in rows[name]] for name in names}
    lines.append(("products a sigma", *(spread(spent[name]) for name in names), *[""] * both))
    each = (_each_product(rows[name]) for name in names)
    lines.append(("each further product, s [95 % interval]", *each, *[""] * both))
    lines.append(("peak memory, GB", *(f"{rows[name][-1]['peak_mb'] / 1000:.2f}" for name in names), *[""] * both))
    if len(alone) > n:
        lines.append((f"products a sigma, mean of all {len(alone)}", f"{sum(alone) / len(alone):.2f}", "", ""))
    title = (
        f"Measured step: {found['world']}, batch {found['batch']}, {found['samples']} Hessian samples, "
        f"{found['images']} images, lr {found['lr']}, {n} steps, {found['threads']} threads, {found['device']}; "
        "median [least, most]"
    )
    if found["cut"] is not None:
        title += f"; cut ({found['cut']})"
    equal = [(name, f"{value:.1e}") for name, value in found["equal"].items()]
    head = ("", *names, *(["reference / ours"] if both else []))
    checked = f"Equal numbers: worst relative difference (a tight Lanczos at {len(found['exact_sigma'])} steps)"
    return [Sheet(title, head, lines), Sheet(checked, ("", "largest"), equal)]


def _sigma(found: dict[str, Any]) -> list[Sheet]:
    ways = found["ways"]
    fastest = ways["ours, from the step before"]["seconds"]
    lines = [
        (name, str(w["products"]), spread(w["seconds"]), f"{w['error']:.1e}", ratio(w["seconds"], fastest))
        for name, w in ways.items()
    ]
    if not any("eigenthings" in name for name in ways):
        lines.append(("hessian-eigenthings: not installed", "", "", "", ""))
    title = f"One sigma to 1e-3: {found['world']}, {found['samples']} samples, n = {len(fastest)}"
    return [Sheet(title, ("", "products", "seconds", "relative error", "over ours, warm"), lines)]


def _floor(found: list[dict[str, Any]]) -> list[Sheet]:
    lines = []
    for each in found:
        ours, plain = each["seconds"]["ours"], each["seconds"]["plain"]
        name = f"{each['world']}, momentum {each['momentum']:g}"
        milli = [spread([1e3 * value for value in values]) for values in (ours, plain)]
        lines.append((name, *milli, ratio(ours, plain), f"{each['weights_differ']:.1e}"))
    head = ("", "ours, ms", "plain, ms", "ours / plain", "weights differ by")
    return [Sheet("A step of M and M' that is not measured, against two plain torch steps", head, lines)]


def _throughput(found: list[dict[str, Any]]) -> list[Sheet]:
    lines = []
    for each in found:
        ours, plain, images = each["seconds"]["ours"], each["seconds"]["plain"], 2 * each["batch"]
        share = each["operations"] / median(ours) / each["matrix_rate"]
        lines.append(
            (
                f"{each['world']}, batch {each['batch']}, {each['arithmetic']}",
                spread([images / value for value in ours], "{:.0f}"),
                spread([images / value for value in plain], "{:.0f}"),
                ratio(plain, ours),
                f"{each['operations'] / median(ours) / 1e12:.3g}",
                f"{each['matrix_rate'] / 1e12:.3g}",
                f"{100 * share:.1f}",
            )
        )
    head = (
        "",
        "ours, images/s",
        "plain loop, images/s",
        "ours / plain",
        "TFLOP/s",
        "matrix product, TFLOP/s",
        "share, %",
    )
    return [Sheet("M and M' trained in step: images a second through both", head, lines)]


def _products(found: list[dict[str, Any]]) -> list[Sheet]:
    lines = []
    for each in found:
        name = f"{each['world']}, lr {each['lr']:g}, momentum {each['momentum']:g}"
        spent = each["products"]
        mean = f"{sum(spent) / len(spent):.2f}"
        past = f"{sum(error > 1e-3 for error in each['errors'])} of {len(each['errors'])}"
        worst = f"{max(each['errors']):.1e}"
        lines.append((name, str(each["samples"]), str(len(spent)), mean, str(max(spent)), past, worst))
    head = ("", "samples", "steps", "products a step", "most", "off by over 1e-3", "worst error")
    return [Sheet("Products of consecutive measured steps, every restart counted", head, lines)]


def _needed(found: list[dict[str, Any]]) -> list[Sheet]:
    lines = []
    for each in found:
        rows = each["rows"]
        spent = [row["needed"] for row in rows]
        name = f"{each['world']}, lr {each['lr']:g}, momentum {each['momentum']:g}"
        after = [f"{median([row['errors'][min(m, len(row['errors'])) - 1] for row in rows]):.1e}" for m in NEEDED]
        mean = f"{sum(spent) / len(spent):.2f} [{min(spent)}, {max(spent)}]"
        lines.append(
            (name, str(each["samples"]), str(len(rows)), mean, *after, f"{max(r['residual'] for r in rows):.0e}")
        )
    head = ("", "samples", "steps", "products needed", *(f"error after {m}" for m in NEEDED), "worst residual")
    return [
        Sheet(f"Least products a step to {found[0]['tolerance']:g}, from yesterday's exact eigenvector", head, lines)
    ]


def _growth(found: list[dict[str, Any]]) -> list[Sheet]:
    lines = []
    for each in found:
        rss, half = each["peak_mb"], each["steps"] // 2
        ends = (f"{rss[half - 1] / 1000:.3f}", f"{rss[-1] / 1000:.3f}")
        lines.append((each["world"], str(each["steps"]), f"{each['second_half_over_first']:.2f}", *ends))
    head = ("", "measured steps", "seconds, second half / first", "peak GB by half", "peak GB by the end")
    return [Sheet("Growth with the number of measured steps", head, lines)]


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    machine = found["machine"]
    console.print(
        f"{machine['cores']} CPU cores ({machine['processor']}), torch {machine['torch']}, "
        f"load {machine['load']:.1f} at the start, commit {machine['git']['commit']}"
    )
    for sheet in sheets(found):
        table = Table(title=sheet.title, title_justify="left")
        for place, name in enumerate(sheet.head):
            table.add_column(name, justify="right" if place else "left")
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)


def markdown(found: dict[str, Any]) -> str:
    """Write the tables for the docs."""
    blocks = []
    for sheet in sheets(found):
        lines = ["| " + " | ".join(row) + " |" for row in (sheet.head, ("---",) * len(sheet.head), *sheet.rows)]
        blocks.append("\n".join([sheet.title, "", *lines]))
    return "\n\n".join(blocks) + "\n"


def figure(found: dict[str, Any], path: Path) -> None:
    """Draw the seconds of a measured step by part."""
    rows = _shared(found["step"])
    names = list(rows)
    drawing = blank(7, 1.4 + 0.5 * len(names))
    axes = drawing.subplots()
    left = [0.0] * len(names)
    for part, colour in PARTS.items():
        widths = [median(row["parts"].get(part, 0.0) for row in rows[name]) for name in names]
        if not any(widths):
            continue
        axes.barh(names, widths, left=left, label=part, color=colour)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds a measured step (medians of the parts)")
    axes.set_title(f"{found['step']['world']}, {found['step']['samples']} Hessian samples", loc="left")
    drawing.legend(ncols=len(PARTS), loc="outside lower center", frameon=False)
    tidy(axes)
    drawing.savefig(path)
