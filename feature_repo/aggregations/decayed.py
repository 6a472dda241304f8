"""An exponentially decayed count or sum: what happened one half-life ago counts half. 0 over no rows.

Age is counted in whole tiles, from the row's tile to the open one, and rows that have left the window count nothing. So
the value is a function of the tiles' integers and of the time alone: the order in which rows arrived cannot change it,
and it needs no state of its own. A decay kept as one running number would depend on that order in its last digits.
"""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Kind, Partials, measure


class Decayed(Aggregation):
    name = "decayed"
    argument = "half_life_ms"
    takes = "rows"
    fades = True
    formula = "sum measure x 2^(-age / half-life), age in whole tiles"
    error = "rounding: 1e-15 of the value per tile"
    meaning = "{column} in {window}, halved every {half_life}"

    def partials(self, asked: Asked, valued: frozenset[str]) -> tuple[tuple[Kind, str], ...]:
        return (measure(asked.column, valued),)

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        return partials.decayed(asked.column, asked.span, asked.half_life_ms)
