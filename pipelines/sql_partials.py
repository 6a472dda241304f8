"""Partial results by SQL over the facts of a lake, each at its request's time: what offline features are read from.

Expects DuckDB's tables `requests` and `facts_<feed>` (see `feature_repo/offline_sql.py`, which makes every statement).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np

from feature_repo import offline_sql
from feature_repo.aggregations.base import Kind
from feature_repo.aggregations.base import measure as measured_by
from feature_repo.layout import Layout
from feature_repo.plan import Feature
from feature_repo.tiles import remember
from feature_repo.windows import Window


class SqlPartials:
    """`aggregations.base.Partials` of every request. Sums that share rows and a window are made by one statement, so
    it must know all the features that will be read."""

    def __init__(self, base: duckdb.DuckDBPyConnection, layout: Layout, wanted: Sequence[Feature], strictly: bool
                 ) -> None:
        self._base, self._layout, self._strictly = base, layout, strictly
        valued = layout.view.valued
        self._needed = list(dict.fromkeys((kind, column, f.window) for f in wanted
                                          for kind, column in f.aggregation.partials(f, valued)))
        self._found: dict[tuple[Kind, str, str], np.ndarray] = {}

    def total(self, kind: Kind, column: str, window: Window) -> np.ndarray:
        if (kind, column, window.name) not in self._found:
            if kind == "squares":
                self._found[kind, column, window.name] = self._squares(column, window)
            else:
                self._compute(("min", "max") if kind in ("min", "max") else ("count", "sum"), column, window)
        return self._found[kind, column, window.name]

    def measure(self, column: str, window: Window) -> np.ndarray:
        kind, _ = measured_by(column, self._layout.view.valued)
        return self.total(kind, column, window)

    def decayed(self, column: str, window: Window, half_life_ms: int) -> np.ndarray:
        table, value = offline_sql.relation(self._layout, column)
        sql = offline_sql.decayed(table, window, value or "1", half_life_ms, self._strictly)
        return _plain(self._base.execute(sql).fetchnumpy()["w0"])

    def distinct(self, column: str, window: Window) -> np.ndarray:
        table, value = offline_sql.relation(self._layout, column)
        return _plain(self._base.execute(offline_sql.distinct(table, window, value, self._strictly)).fetchnumpy()["w0"])

    def top(self, column: str, window: Window, k: int) -> np.ndarray:
        table, value = offline_sql.relation(self._layout, column)
        out = self._empty_lists()
        for rid, found in self._base.execute(offline_sql.top(table, window, value, k, self._strictly)).fetchall():
            out[rid].append(found)
        return out

    def newest(self, column: str, k: int) -> np.ndarray:
        """Facts are played to each key in the order in which they became known."""
        table, value = offline_sql.relation(self._layout, column)
        facts = self._base.execute(offline_sql.newest(table, value, self._strictly)).fetchall()
        out = self._empty_lists()
        held: list[tuple[int, Any]] = []
        position, current = 0, None
        requests = self._base.execute("SELECT code, moment, rid FROM requests ORDER BY code, moment").fetchall()
        for code, when, rid in requests:
            if code != current:
                held, current = [], code
                position = bisect_left(facts, (code,), lo=position)
            while position < len(facts) and facts[position][0] == code and facts[position][1] <= when:
                remember(held, k, facts[position][2:], 1)
                position += 1
            out[rid] = [v for _, v in held]
        return out

    def _compute(self, kinds: tuple[Kind, ...], column: str, window: Window) -> None:
        """All that is needed of these kinds from the same rows over the same window, with one statement."""
        table, _ = offline_sql.relation(self._layout, column)
        members = [(kind, name) for kind, name, of in self._needed if kind in kinds and of == window.name
                   and offline_sql.relation(self._layout, name)[0] == table]
        values = {name: offline_sql.relation(self._layout, name)[1] for _, name in members}
        if "sum" in kinds:
            exprs = [_summed(kind, values[name]) for kind, name in members]
            shared = list(dict.fromkeys(exprs))
            rows = self._base.execute(offline_sql.sums(table, window, shared, self._strictly)).fetchnumpy()
            places = [shared.index(e) for e in exprs]
        else:
            picks = [(kind, values[name]) for kind, name in members]
            rows = self._base.execute(offline_sql.extremes(table, window, picks, self._strictly)).fetchnumpy()
            places = list(range(len(members)))
        for (kind, name), place in zip(members, places, strict=True):
            self._found[kind, name, window.name] = _plain(rows[f"w{place}"])

    def _squares(self, column: str, window: Window) -> np.ndarray:
        table, value = offline_sql.relation(self._layout, column)
        rows = self._base.execute(offline_sql.squares(table, window, value, self._strictly)).fetchnumpy()
        low, high = (np.ma.getdata(rows[name]).astype(object) for name in ("w0", "h0"))
        whole: np.ndarray = high * 2**62 + low
        return whole

    def _empty_lists(self) -> np.ndarray:
        (n,) = self._base.execute("SELECT count(*) FROM requests").fetchone() or (0,)
        out = np.empty(n, dtype=object)
        for row in range(n):
            out[row] = []
        return out


def _summed(kind: Kind, value: str) -> str:
    if kind == "sum":
        return value
    return f"CASE WHEN {value} IS NULL THEN 0 ELSE 1 END" if value else "1"


def _plain(column: Any) -> np.ndarray:
    """DuckDB's (possibly masked) column as float64."""
    filled: np.ndarray = np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
    return filled
