"""One contract against the lake: schema and quality of a window of its rows, freshness and volume of what came live.

Reads the lake only. A promise that the data cannot judge is said to be so (`insufficient_data`), never taken as kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from adapters import event_lake
from adapters.lake_watch import LakeWatch, newest_event_ms
from feature_repo import events
from feature_repo.contracts import watch
from feature_repo.contracts.contract import Contract, schema_fields
from feature_repo.contracts.edge import ELEMENT
from feature_repo.contracts.findings import Finding, Level, worst
from feature_repo.contracts.rules import Distribution, NullShare, Refers, RowRule, Rule, Unique
from models.drift.columns import Column, category, numeric
from models.drift.psi import PSI
from pipelines.contract_expressions import broken, reasons, values_of
from pipelines.contract_frames import PLACE, failed, row_schema

SAMPLE: Final = 50_000
BY_CHANCE: Final = 0.01
QUARANTINED: Final = 1000
"""Rows of one contract that are kept with their reasons; the report counts all of them."""
_BREACH: Final = {"warn": Level.WARN, "fail": Level.BROKEN}
_TYPES: Final = {"string": pl.String, "integer": pl.Int64, "boolean": pl.Boolean}


@dataclass(frozen=True)
class Span:
    """since <= event_time < until, in ms."""

    since_ms: int
    until_ms: int

    @property
    def before(self) -> Span:
        """The span of the same length before this one."""
        return Span(2 * self.since_ms - self.until_ms, self.since_ms)


@dataclass(frozen=True)
class Checked:
    """One contract's findings, of how many rows, and the rows that broke a row rule, with their reasons."""

    contract: Contract
    findings: tuple[Finding, ...]
    rows: int
    span: Span | None
    bad: pl.DataFrame = field(default_factory=pl.DataFrame)
    bad_rows: int = 0

    @property
    def level(self) -> Level:
        return worst(self.findings)


@dataclass(frozen=True)
class Lake:
    """The lake as the checks see it. `missing` are the columns that an imported history never had (`events.device`)."""

    folder: Path
    home: Path
    missing: frozenset[str] = frozenset()
    known: dict[tuple[str, str], pl.Series] = field(default_factory=dict)

    @cached_property
    def live(self) -> LakeWatch:
        return LakeWatch(self.folder)

    def rows(self, contract: Contract, span: Span | None) -> pl.DataFrame:
        """The rows of a window; of a table all. Raises FileNotFoundError for a table that was not written yet."""
        if contract.kind == "table":
            return _frame(pq.read_table(self.home / contract.path))
        assert span is not None
        return _frame(event_lake.scan(self.folder, contract.name, None, span.since_ms, span.until_ms))

    def values(self, topic: str, name: str) -> pl.Series:
        """Every value of a field that the lake knows."""
        if (topic, name) not in self.known:
            column = name.partition(ELEMENT)[0]
            self.known[topic, name] = values_of(_frame(event_lake.scan(self.folder, topic, [column])), name).unique()
        return self.known[topic, name]


def check(contract: Contract, lake: Lake, window_ms: int, now_ms: int, until_ms: int | None = None) -> Checked:
    """Every promise of one contract. The window ends at `until_ms`, else with the newest row."""
    findings: list[Finding] = []
    span = None
    if contract.kind == "topic":
        live = lake.live.look(contract.name)
        findings += [f for f in (watch.freshness(contract, live, now_ms), watch.volume(contract, live, now_ms)) if f]
        newest = newest_event_ms(lake.folder, contract.name)
        if newest is None:
            return Checked(contract, (*findings, _nothing("no row yet")), 0, None)
        end = newest + 1 if until_ms is None else until_ms
        span = Span(end - window_ms, end)
    try:
        frame = lake.rows(contract, span)
    except FileNotFoundError:
        return Checked(contract, (_nothing(f"{contract.path} was not written yet"),), 0, None)
    findings += _rows(contract, frame)
    if not any(f.kind == "schema" and f.level == Level.BROKEN for f in findings):
        findings += [_table_rule(rule, contract, frame, lake, span) for rule in contract.rules
                     if not isinstance(rule, RowRule)]  # fmt: skip
        bad = frame.with_columns(reasons(contract).alias("reason")).filter(pl.col("reason").is_not_null())
        return Checked(contract, tuple(findings), frame.height, span, bad.head(QUARANTINED), bad.height)
    return Checked(contract, tuple(findings), frame.height, span)


def _nothing(why: str) -> Finding:
    return Finding(kind="quality", promise="rows to judge", level=Level.INSUFFICIENT_DATA, detail=why)


def _rows(contract: Contract, frame: pl.DataFrame) -> Iterator[Finding]:
    """Schema and row rules, as pandera finds them."""
    found = failed(row_schema(contract, types_of(contract, frame), required_of(contract)), frame)
    wrong = found["schema"]
    yield Finding(kind="schema", promise=f"version {contract.version} of the schema",
                  level=Level.BROKEN if wrong else Level.KEPT, detail="; ".join(wrong))  # fmt: skip
    for rule in contract.row_rules:
        if wrong and rule.text not in found["rows"]:
            continue
        share = float(frame.select(broken(rule).mean()).item() or 0.0) if rule.text in found["rows"] else 0.0
        yield _judged(rule, share, share <= rule.most_broken, frame.height, f"{share:.2%} of the rows break it")


def _table_rule(rule: Rule, contract: Contract, frame: pl.DataFrame, lake: Lake, span: Span | None) -> Finding:
    match rule:
        case NullShare(field=name, most=most):
            if f"events.{name}" in lake.missing:
                frame = frame.filter(pl.col("_partition") >= 0)
            share = float(frame[name].null_count() / frame.height) if frame.height else 0.0
            return _judged(rule, share, share <= most, frame.height, f"{share:.1%} empty")
        case Unique(field=name, most_repeated=most):
            series = values_of(frame, name).drop_nulls()
            share = 1 - series.n_unique() / len(series) if len(series) else 0.0
            return _judged(rule, share, share <= most, len(series), f"{share:.2%} repeated")
        case Refers(field=name, to=to, to_field=to_field, least=least):
            series = values_of(frame, name).drop_nulls()
            share = float(series.is_in(lake.values(to, to_field).implode()).mean() or 0.0) if len(series) else 1.0
            return _judged(rule, share, share >= least, len(series), f"{share:.2%} known")
        case Distribution(field=name, most_psi=most):
            return _spread(rule, name, most, contract, frame, lake, span)
    raise TypeError(f"no measure for the rule {rule!r}")


def _spread(
    rule: Rule, name: str, most: float, contract: Contract, frame: pl.DataFrame, lake: Lake, span: Span | None
) -> Finding:
    """The window against the one before it."""
    before = lake.rows(contract, span.before) if span is not None else frame.clear()
    measured = PSI().measure(_column(name, before), _column(name, frame))
    if measured is None:
        return Finding(kind="quality", promise=rule.text, level=Level.INSUFFICIENT_DATA,
                       detail=f"{frame.height:,} rows now, {before.height:,} in the window before")  # fmt: skip
    chance = 0.0 if measured.p_value is None else measured.p_value
    kept = measured.value <= most or chance > BY_CHANCE
    return _judged(rule, measured.value, kept, frame.height, f"PSI {measured.value:.3f}")


def _column(name: str, frame: pl.DataFrame) -> Column:
    series = values_of(frame, name)
    if len(series) > SAMPLE:
        series = series.gather_every(-(-len(series) // SAMPLE))
    if series.dtype.is_numeric():
        return numeric(name, series.cast(pl.Float64).fill_null(np.nan).to_numpy())
    return category(name, series.to_list())


def _judged(rule: Rule, value: float, kept: bool, rows: int, detail: str) -> Finding:
    if not rows:
        return Finding(kind="quality", promise=rule.text, level=Level.INSUFFICIENT_DATA, detail="no row to judge")
    level = Level.KEPT if kept else _BREACH[rule.severity]
    return Finding(kind="quality", promise=rule.text, level=level, value=value, detail=detail)


def types_of(contract: Contract, frame: pl.DataFrame) -> Mapping[str, Any]:
    """The columns that the contract's table must have, with their polars types."""
    if contract.kind == "topic":
        empty = _frame(event_lake.schema(contract.name).empty_table())
        return dict(empty.schema)
    return {name: frame.schema.get(name, pl.Datetime) if told.type == "timestamp" else _TYPES[told.type]
            for name, told in contract.fields.items()}  # fmt: skip


def required_of(contract: Contract) -> frozenset[str]:
    """The columns that are never empty."""
    if not contract.schema:
        return frozenset(contract.fields)
    schema: Any = events.json_schemas()[contract.name]
    optional = {path for path, found in schema_fields(schema)
                if any(kind.get("type") == "null" for kind in found.get("anyOf", ()))}  # fmt: skip
    return frozenset({*contract.fields, *PLACE, "type"} - optional)


def _frame(table: Any) -> pl.DataFrame:
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found
