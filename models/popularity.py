"""Decayed popularity: what everybody else buys now. The baseline to beat, and the last resort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAY_MS = 86_400_000


@dataclass(frozen=True)
class PopularityConfig:
    half_life_days: float = 7.0

    def __post_init__(self) -> None:
        if self.half_life_days <= 0:
            raise ValueError(f"half_life_days must be above 0, not {self.half_life_days}")


def popularity(
    items: NDArray[np.integer[Any]],
    time_ms: NDArray[np.integer[Any]],
    weight: NDArray[np.floating[Any]],
    n_items: int,
    now_ms: int,
    config: PopularityConfig | None = None,
) -> NDArray[np.float32]:
    """log(1 + decayed weight) per item, float32 [n_items]; `items` are 0-based rows, each event counts `weight`."""
    half_life = (config or PopularityConfig()).half_life_days * DAY_MS
    decayed = weight * 0.5 ** ((now_ms - time_ms) / half_life)
    return np.log1p(np.bincount(items, weights=decayed, minlength=n_items)).astype(np.float32)
