"""All figures of one run."""

from pathlib import Path

from unlearn.figures import accuracy, correlation, errors, style
from unlearn.figures.saved import read
from unlearn.values.errors import UserError


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
    try:
        return [
            style.save(figure, folder / "figures" / f"{name}.png")
            for name, figure in drawn.items()
            if figure is not None
        ]
    except OSError as error:
        raise UserError(f"{folder}: figures cannot be written ({error.strerror or error}); free the folder") from error
