"""How wide the error of a share is that was counted on so many images."""

from __future__ import annotations

from math import sqrt

_Z = 1.959964  # 95 % of a normal distribution lie within so many deviations


def wilson(hits: int, number: int) -> tuple[float, float]:
    """Return the interval in which, at 95 %, the share lies of which `hits` of `number` were counted (Wilson 1927)."""
    share, square = hits / number, _Z * _Z
    centre = (share + square / (2 * number)) / (1 + square / number)
    half = _Z / (1 + square / number) * sqrt(share * (1 - share) / number + square / (4 * number * number))
    return max(0.0, centre - half), min(1.0, centre + half)


def difference(lost: int, won: int, number: int) -> tuple[float, float]:
    """Return the interval, at 95 %, of a loss: of `number` answers, `lost` became wrong and `won` became right.

    Each share has Wilson's interval, and the two are put together as Newcombe does it (1998, method 10).
    """
    loss = (lost - won) / number
    (low_lost, high_lost), (low_won, high_won) = wilson(lost, number), wilson(won, number)
    down = sqrt((lost / number - low_lost) ** 2 + (high_won - won / number) ** 2)
    up = sqrt((high_lost - lost / number) ** 2 + (won / number - low_won) ** 2)
    return max(-1.0, loss - down), min(1.0, loss + up)
