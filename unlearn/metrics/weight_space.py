"""The unlearning errors: proxies for the verification error that need no retraining.

Sources: the paper is Thudi, Deza, Chandrasekaran, Papernot 2022, *Unrolling SGD* (arXiv 2109.13398); the code is
cleverhans-lab/unrolling-sgd at commit 49e001f, `Unlearning/correlation_verification.py`. `unrolled` is ours: unrolling
takes eta times the average gradient for norm(w_t - w_0) / t, which is the average step already.

All take eta (`lr`), t (`steps`), the distance norm(w_t - w_0) and a singular value `sigma` of the Hessian. At fixed lr
the first and the last are proportional; across learning rates they are not, and only the last has the unit of a weight.
"""

import math

from unlearn.values.errors import choice

SIGMAS = ("largest_magnitude", "sqrt_signed")


def unlearning_error_paper(lr: float, steps: int, distance: float, sigma: float) -> float:
    """Give eta^2 * distance / t * (t^2 - t) / 2 * mean(sigma), the paper's form.

    Args:
        lr: eta.
        steps: t, at least 1.
        distance: norm(w_t - w_0).
        sigma: mean of the sigmas seen on the way.

    Returns:
        e_paper.

    >>> unlearning_error_paper(0.1, 3, 6.0, 2.0)
    0.12000000000000002
    """
    return lr * unlearning_error_unrolled(lr, steps, distance, sigma)


def unlearning_error_code(lr: float, steps: int, distance: float, sigma: float) -> float:
    """Give eta^2 * distance * t / 2 * sigma, as the reference code computes it.

    Args:
        lr: eta.
        steps: t.
        distance: norm(w_t - w_0).
        sigma: the latest, or the running mean.

    Returns:
        e_code.

    >>> unlearning_error_code(0.5, 4, 1.0, 2.0)
    1.0
    """
    return lr**2 * distance * steps / 2 * sigma


def unlearning_error_unrolled(lr: float, steps: int, distance: float, sigma: float) -> float:
    """Give eta * distance / t * (t^2 - t) / 2 * mean(sigma), from unrolling SGD with the average step distance / t.

    Args:
        lr: eta.
        steps: t, at least 1.
        distance: norm(w_t - w_0).
        sigma: mean of the sigmas seen on the way.

    Returns:
        e_unrolled, in units of weight.

    >>> unlearning_error_unrolled(0.5, 3, 6.0, 2.0)
    6.0
    """
    return lr * distance / steps * (steps**2 - steps) / 2 * sigma


def sigma_of(eigenvalue: float, kind: str) -> float:
    """Turn the Hessian's eigenvalue of largest magnitude into sigma.

    Args:
        eigenvalue: signed.
        kind: `largest_magnitude`, the largest singular value, |eigenvalue|; `sqrt_signed`, the square root of the
            signed eigenvalue as the reference code has it, NaN where that is negative.

    Returns:
        sigma.

    >>> sigma_of(-4.0, "largest_magnitude")
    4.0
    """
    choice("measure.sigma", kind, SIGMAS)
    if kind == "largest_magnitude":
        return abs(eigenvalue)
    return math.sqrt(eigenvalue) if eigenvalue >= 0 else math.nan
