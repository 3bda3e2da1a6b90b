"""All figures of one run."""

from pathlib import Path

from unlearn.figures import accuracy, correlation, errors, style
from unlearn.figures.saved import read
from unlearn.values.whole import writing


def draw(folder: Path) -> list[Path]:
    """Draw a run from its saved files into `figures/`; a figure that has nothing to show is left out.

    Args:
        folder: the run's folder.

    Returns:
        The written files.

    Raises:
        UserError: the folder holds no run, or cannot be written.
    """
    run = read(folder)
    drawn = {"errors": errors.draw(run), "correlation": correlation.draw(run), "accuracy": accuracy.draw(run)}
    into = folder / "figures"
    with writing(into, "free the folder"):
        return [style.save(figure, into / f"{name}.png") for name, figure in drawn.items() if figure is not None]
