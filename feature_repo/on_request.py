"""Features of a request and stored features together: this payment against what its card usually pays. Pure.

They are computed when the request is there, by the same function online, offline (`service_at`) and in Feast's
on-demand view, so they cannot differ between training and serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from feature_repo.aggregations.base import divided


class OnRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`ratio`: request / stored[0]. `zscore`: (request - stored[0]) / stored[1], a mean and its standard deviation.

    `request` is a number that comes with the request; `stored` are features of the service's views. Missing where a
    stored value is missing or the divisor is 0."""

    name: str
    how: Literal["ratio", "zscore"]
    request: str
    stored: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.stored) != _TAKES[self.how]:
            raise ValueError(f"{self.name}: {self.how} takes {_TAKES[self.how]} stored features, not {self.stored}")


_TAKES: Final = {"ratio": 1, "zscore": 2}


def computed(declared: Sequence[OnRequest], request: Mapping[str, np.ndarray], stored: Mapping[str, np.ndarray]
             ) -> dict[str, np.ndarray]:
    """Every declared feature of n requests, float64 [n]. Raises KeyError when a value that one needs is not given."""
    out = {}
    for feature in declared:
        asked = np.asarray(request[feature.request], dtype=np.float64)
        first, *rest = (np.asarray(stored[name], dtype=np.float64) for name in feature.stored)
        above, below = (asked, first) if feature.how == "ratio" else (asked - first, rest[0])
        out[feature.name] = divided(above, below)
    return out
