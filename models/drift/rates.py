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
    expected = before * current.trials  # errors are those of what was expected: a silent window has none of its own
    bunched = 1.0 if reference.spread is None else max(1.0, reference.spread**2 / (reference.hits + 0.5))
    spread = max(current.spread or 0.0, np.sqrt(bunched * (expected + 0.5)))
    error = float(np.hypot(np.sqrt(bunched / (reference.hits + 0.5)), spread / (expected + 0.5)))
    return Measurement(abs(ratio), normal_tail((now - before) / before / error), f"{before:.4g} -> {now:.4g}")

