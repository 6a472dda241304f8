"""Jensen-Shannon distance (base 2): 0 for equal, 1 for samples that have nothing in common.

The divergence is an eighth of the population stability index for small changes, and has its law by that (Lin 1991).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from models.drift.base import Comparison, Measurement, Thresholds
from models.drift.bins import binned
from models.drift.columns import Column
from models.drift.significance import chi_square_tail


class JensenShannon(Comparison):
    name: ClassVar[str] = "js"
    thresholds: ClassVar[Thresholds] = Thresholds(0.1, 0.2)

    def distance(self, reference: Column, current: Column) -> Measurement:
        p, q = binned(reference, current)
        middle = (p + q) / 2
        nats = float(_divergence(p, middle) + _divergence(q, middle)) / 2
        scale = 1 / reference.present + 1 / current.present
        return Measurement(float(np.sqrt(max(nats, 0) / np.log(2))), chi_square_tail(8 * nats / scale, len(p) - 1))


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / q[used])))
