"""What a user can do wrong, said in one line."""

from collections.abc import Callable


class UserError(Exception):
    """A mistake in the input. Its text is one line that says what is wrong and what would be right; exit code 2."""


class Busy(UserError):
    """Another process is at what was asked for."""


class Diverged(UserError):
    """A loss, or M'', became NaN or infinite; what was measured until then is kept.

    Attributes:
        step: the recorded step at which it was not finite, counted from 1; 0 in pretraining.
        lr: of that step.
    """

    def __init__(self, step: int, lr: float) -> None:
        super().__init__(f"the loss is not finite at step {step} (lr={lr:g}): try a smaller lr, or less momentum")
        self.step, self.lr = step, lr

    @classmethod
    def saying(cls, text: str, step: int, lr: float = float("nan")) -> "Diverged":
        """Make one with a message of its own.

        Args:
            text: the message.
            step: at which something was not finite.
            lr: of that step, where it is known.

        Returns:
            The error.
        """
        error = cls(step, lr)
        error.args = (text,)
        return error

    def in_pretraining(self) -> "Diverged":
        """Say that it came before the recorded steps.

        Returns:
            The error, at step 0.
        """
        return Diverged.saying(f"pretraining: {self}", 0, self.lr)

    def __reduce__(self) -> tuple[Callable[..., "Diverged"], tuple[str, int, float]]:
        """Give how it is made again in another process; by default from its message alone."""
        return Diverged.saying, (str(self), self.step, self.lr)


class NotFinite(UserError):
    """A product with a curvature matrix is NaN or infinite: the weights are about to be."""

    def __init__(self) -> None:
        super().__init__("the curvature at these weights is not finite: try a smaller lr, or less momentum")

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Give how it is made again in another process."""
        return NotFinite, ()


def in_one_line(error: BaseException) -> str:
    """Say an error in one line.

    Args:
        error: any.

    Returns:
        Its message without line breaks; the name of its type where it has none.
    """
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """Say an error by the first line of its message, where more would be advice to programmers.

    Args:
        error: any.

    Returns:
        That line; the name of its type where it has none.
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Check a named choice.

    Args:
        name: the config key, as the user writes it.
        value: what the user wrote.
        allowed: what can be written.

    Raises:
        UserError: `value` is not one of `allowed`.
    """
    if value not in allowed:
        raise UserError(f"{name}={value}: choose one of {', '.join(allowed)}")


def at_least(name: str, value: float | None, least: float) -> None:
    """Check a lower bound that is itself allowed; NaN and infinity are refused.

    Args:
        name: the config key, as the user writes it.
        value: what the user wrote; None, by which a key says that it is left open, passes.
        least: the smallest value that is allowed.

    Raises:
        UserError: `value` is below `least`, infinite, or not a number.
    """
    if value is None:
        return
    if value == float("inf"):
        raise UserError(f"{name}={value}: must be finite")
    if not value >= least:
        raise UserError(f"{name}={value}: must be at least {least}")


def above(name: str, value: float, bound: float) -> None:
    """Check a lower bound that is not itself allowed; NaN is refused.

    Args:
        name: the config key, as the user writes it.
        value: what the user wrote.
        bound: the largest value that is not allowed.

    Raises:
        UserError: `value` is not above `bound`, infinite, or not a number.
    """
    if not bound < value < float("inf"):
        raise UserError(f"{name}={value}: must be a finite number above {bound}")


def fraction(name: str, value: float) -> None:
    """Check that a number lies in [0, 1).

    Args:
        name: the config key, as the user writes it.
        value: what the user wrote.

    Raises:
        UserError: `value` lies outside [0, 1).
    """
    if not 0 <= value < 1:
        raise UserError(f"{name}={value}: must be at least 0 and below 1")
