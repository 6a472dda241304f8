"""The ratio of two rates, on the log scale, with what is known of its error."""

from __future__ import annotations

import numpy as np

from models.drift.base import Measurement, Rate
from models.drift.significance import normal_tail


def log_ratio(reference: Rate, current: Rate) -> Measurement:
    """|log(current rate / reference rate)| and its p-value; half a hit is added to both, so that silence has one."""
    if not reference.trials or not current.trials:
        raise ValueError("a rate needs trials")
    before, now = ((rate.hits + 0.5) / rate.trials for rate in (reference, current))
    ratio = float(np.log(now / before))
    expected = before * current.trials  # the error is that of what was expected, or a silent window would know nothing
    wide = _relative(current, max(current.hits, expected))
    error = float(np.hypot(_relative(reference, reference.hits), wide))
    return Measurement(abs(ratio), normal_tail((now - before) / before / error), f"{before:.4g} -> {now:.4g}")


def _relative(rate: Rate, hits: float) -> float:
    """Standard error of the rate over the rate."""
    spread = np.sqrt(hits + 0.5) if rate.spread is None else max(rate.spread, np.sqrt(0.5))
    return float(spread / (hits + 0.5))
