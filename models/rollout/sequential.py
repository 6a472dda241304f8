"""Sequential tests that may be looked at as often as one likes: Robbins' mixture (1970), for differences of ratios.

Each arm is summed up by shopper (a shopper's requests resemble one another, so the shopper is the unit of chance). The
difference of two ratios is nearly normal with the delta method's variance V; an e-value of 1/alpha or more rejects with
probability at most alpha however often one looked (Johari et al. 2017; Howard et al. 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec

_MOST: Final = 700.0  # exp() of more overflows


class Sums(msgspec.Struct, frozen=True):
    """One arm's sums over its shoppers, n requests and an outcome y each: `yy` of squares, `yn` of products."""

    users: float
    n: float
    nn: float
    y: float
    yy: float
    yn: float

    @property
    def ratio(self) -> float:
        """Outcome per request; NaN without requests."""
        return self.y / self.n if self.n else math.nan

    @property
    def variance(self) -> float:
        """Of `ratio`, by the delta method over shoppers; infinite below two shoppers."""
        if self.users < 2 or not self.n:
            return math.inf
        r = self.ratio
        squares = max(self.yy - 2 * r * self.yn + r * r * self.nn, 0.0)
        return squares / self.n**2 * self.users / (self.users - 1)


@dataclass(frozen=True)
class Difference:
    """Canary minus control. `low`..`high` is a confidence sequence: it covers at every look at once."""

    canary: float
    control: float
    value: float
    low: float
    high: float
    e_value: float
    """Evidence that the canary is worse by more than the margin; 1/alpha or more rejects "not worse"."""

    @property
    def p(self) -> float:
        """Always-valid p-value."""
        return min(1.0, 1.0 / self.e_value) if self.e_value > 0 else 1.0


def compare(canary: Sums, control: Sums, *, bad: int, margin: float, tau: float, alpha: float) -> Difference:
    """Is the canary's ratio worse by more than `margin`? `bad` +1: more is worse, -1: less is worse.

    `tau` > 0 is the size of effect that the test looks for soonest; `alpha` is the level of the interval.
    """
    value, variance = canary.ratio - control.ratio, canary.variance + control.variance
    if not math.isfinite(variance) or not math.isfinite(value):
        return Difference(canary.ratio, control.ratio, math.nan, -math.inf, math.inf, 0.0)
    variance = max(variance, 1e-12)
    half = half_width(variance, tau, alpha)
    return Difference(
        canary.ratio, control.ratio, value, value - half, value + half, e_value(bad * value - margin, variance, tau)
    )


def e_value(effect: float, variance: float, tau: float) -> float:
    """Half-normal mixture of likelihood ratios against "effect <= 0": a supermartingale there, whenever one looks."""
    total = variance + tau * tau
    exponent = tau * tau * effect * effect / (2 * variance * total)
    tail = 0.5 * math.erfc(-tau * effect / math.sqrt(2 * variance * total))
    return 2 * math.sqrt(variance / total) * math.exp(min(exponent, _MOST)) * tail


def half_width(variance: float, tau: float, alpha: float) -> float:
    """Half of the two-sided confidence sequence's width (normal mixture)."""
    total = variance + tau * tau
    return math.sqrt(variance * total / (tau * tau) * (2 * math.log(1 / alpha) + math.log(total / variance)))
