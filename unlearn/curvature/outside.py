"""What an eigenvector feels of a spectrum of which little is known."""

import math

import numpy as np

SPREAD = 2.0  # times the spread seen, curvature outside may spread


def felt(outer: tuple[float, float], most: float, theta: float) -> tuple[float, float]:
    """Bound the curvature that the leading eigenvector feels along a unit vector x outside of all that is known.

    It is o + s^2 / (theta - b), with o = x' A x, s the norm of what A x has outside of x, and b what lies further out.
    Of all spectra within [-most, most] with mean o and spread s, those with a point at one of the ends are felt the
    most and the least (Gauss and Radau's rule; Golub and Meurant, Matrices, Moments and Quadrature, chapter 6).

    Args:
        outer: o and s as last seen.
        most: the largest magnitude that curvature outside is taken to have.
        theta: the leading eigenvalue, or a bound below it in magnitude.

    Returns:
        A guess, the mean of both bounds; and how far off it may be, where the spread may be `SPREAD` times s.
    """
    if math.isinf(outer[1]) or abs(outer[0]) >= most:
        return 0.0, most  # nothing was seen, or nothing that these bounds have room for
    sign = math.copysign(1.0, theta)
    o = sign * outer[0]

    def bounds(spread: float) -> list[float]:
        ends = []
        for end in (-most, most):
            square = min(spread**2, (most - o) * (most + o))  # no spectrum within the bounds spreads more
            beyond = end - math.copysign(square / abs(end - o), end)
            ends.append(min(most, o + square / max(abs(theta) - beyond, np.finfo(float).eps * most)))
        return ends

    low, high = bounds(outer[1])
    lowest, highest = bounds(SPREAD * outer[1])
    guess = (low + high) / 2
    return sign * guess, min(max(guess - lowest, highest - guess, guess - o), most - abs(guess))
