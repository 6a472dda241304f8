"""From stored rows to columns of values: windows of tiles, plain fields, and the declared defaults."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from adapters.online_rows import Attributes, Stored
from feature_repo.about import AttributeView
from feature_repo.batch_read import ViewReader
from feature_repo.plan import FeaturePlan, ViewPlan
from services.feature_server.terms import NEVER, Column, Kind, State

KEPT_READERS = 256  # compiled choices of features
DEFAULT = "default:"  # a view's tag that names a feature: its default, as JSON


class Values:
    """Reads rows of any view of a plan."""

    def __init__(self, plan: FeaturePlan) -> None:
        self._tiled = plan.views
        self._plain = {v.name: v for v in plan.attribute_views}
        views: list[ViewPlan | AttributeView] = [*plan.declared_views, *plan.attribute_views]
        self._join_keys = {v.name: v.join_keys for v in views}
        self._defaults = {v.name: {name.removeprefix(DEFAULT): msgspec.json.decode(text)
                                   for name, text in v.about.tags.items() if name.startswith(DEFAULT)} for v in views}
        self._reader = lru_cache(maxsize=KEPT_READERS)(self._compile)

    def join_keys(self, view: str) -> tuple[str, ...]:
        return self._join_keys[view]

    def read(self, view: str, features: tuple[str, ...], rows: Sequence[Stored | None], states: np.ndarray, at_ms: int
             ) -> tuple[tuple[Column, ...], np.ndarray]:
        """(a column per feature, ms at which each row's newest event or state happened or NEVER).

        Rows that cannot be read (tiles of another feature set) become defaults in `states`.
        """
        if view in self._plain:
            columns, made_ms = self._attributes(self._plain[view], features, rows)
        else:
            columns, made_ms = self._windows(view, features, rows, at_ms)
        states[(states != State.MISSING) & (made_ms < 0)] = State.DEFAULT
        defaults = self._defaults[view]
        if defaults and (by_default := states == State.DEFAULT).any():
            for column in columns:
                if column.name in defaults:
                    column.values[by_default] = defaults[column.name]
        return columns, made_ms

    def _windows(self, view: str, features: tuple[str, ...], rows: Sequence[Any], at_ms: int
                 ) -> tuple[tuple[Column, ...], np.ndarray]:
        reader, kinds = self._reader(view, features)
        found, arrivals = reader.read(rows, at_ms)
        columns = tuple(
            Column(name, kind, values.astype(np.int64) if kind == "int64" else values)
            for (name, values), kind in zip(found.items(), kinds, strict=True))
        return columns, arrivals

    def _compile(self, view: str, features: tuple[str, ...]) -> tuple[ViewReader, tuple[Kind, ...]]:
        plan = self._tiled[view]
        kinds = {f.name: f.aggregation.dtype for f in plan.declared}
        return ViewReader(plan, features), tuple(kinds[name] for name in features)

    def _attributes(self, view: AttributeView, features: tuple[str, ...], rows: Sequence[Any]
                    ) -> tuple[tuple[Column, ...], np.ndarray]:
        order = {name: at for at, name in enumerate(view.fields)}
        columns = []
        for name in features:
            values = np.empty(len(rows), dtype=object)
            values[:] = [row.values[order[name]] if isinstance(row, Attributes) else None for row in rows]
            columns.append(Column(name, msgspec.convert(view.fields[name], Kind), values))
        made_ms = [row.at_ms if isinstance(row, Attributes) else NEVER for row in rows]
        return tuple(columns), np.array(made_ms, np.int64)
