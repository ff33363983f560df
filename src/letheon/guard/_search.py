"""Minimise a function of one number from its values alone.

    slope = (f(x + probe) - f(x - probe)) / 2 probe,     x <- clip(x - rate slope)

Where a bound cuts a probe short, the slope is divided by the true distance of the two points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """The best point that was tried, its value, and all points in order."""

    x: float
    value: float
    tried: tuple[tuple[float, float], ...]


def slope(f: Callable[[float], float], x: float, probe: float, bounds: tuple[float, float]) -> float:
    """The two-point estimate of f'(x), exact for polynomials of degree two away from the bounds."""
    low, high = max(x - probe, bounds[0]), min(x + probe, bounds[1])
    return (f(high) - f(low)) / (high - low)


def zeroth_order(
    f: Callable[[float], float],
    start: float,
    *,
    probe: float,
    rate: float,
    steps: int,
    bounds: tuple[float, float],
    cooling: float = 1.0,
    enough: float = 0.0,
) -> Found:
    """Descend along two-point slopes; ends early when a value is at most `enough`.

    Args:
        cooling: factor of the probe from step to step: a sharp minimum is straddled by wide probes and found by narrow ones.
    """
    tried: list[tuple[float, float]] = []

    def seen(x: float) -> float:
        tried.append((x, f(x)))
        return tried[-1][1]

    x = min(max(start, bounds[0]), bounds[1])
    for k in range(steps):
        step = slope(seen, x, probe * cooling**k, bounds)
        if min(value for _, value in tried[-2:]) <= enough:
            break
        x = min(max(x - rate * step, bounds[0]), bounds[1])
    else:
        seen(x)
    best = min(tried, key=lambda point: point[1])
    return Found(*best, tuple(tried))
