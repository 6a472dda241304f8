"""The row rules of a contract as polars expressions, over many rows at once.

The same rules as `feature_repo/contracts/edge.py` applies to one event; a test holds the two readings equal.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from feature_repo.contracts.contract import Contract
from feature_repo.contracts.edge import ELEMENT
from feature_repo.contracts.rules import Allowed, Distinct, Range, RowRule, Together


def broken(rule: RowRule) -> pl.Expr:
    """Whether a row breaks the rule. What is missing breaks nothing."""
    match rule:
        case Range(field=field, least=least, most=most):
            return _on(field, lambda value: ~value.is_between(least, most))
        case Allowed(field=field, values=values):
            return _on(field, lambda value: ~value.is_in(list(values)))
        case Distinct(field=field):
            return (pl.col(field).list.n_unique() < pl.col(field).list.len()).fill_null(False)
        case Together(field=field, needs=needs):
            return pl.col(field).is_not_null() & pl.col(needs).is_null()
    raise TypeError(f"no expression for the rule {rule!r}")


def _on(field: str, bad: Any) -> pl.Expr:
    if ELEMENT in field:
        outer, _, inner = field.partition(ELEMENT)
        element = bad(pl.element().struct.field(inner)).fill_null(False)
        return pl.col(outer).list.eval(element).list.any().fill_null(False)
    expression: pl.Expr = bad(pl.col(field)).fill_null(False)
    return expression


def values_of(frame: pl.DataFrame, field: str) -> pl.Series:
    """A field as one column: of a list of records, the field of every record."""
    outer, nested, inner = field.partition(ELEMENT)
    series = frame[outer]
    return series.explode().drop_nulls().struct.field(inner) if nested else series


def reasons(contract: Contract) -> pl.Expr:
    """The first row rule that a row breaks, in words; null for a row that keeps its contract."""
    rules = contract.row_rules
    if not rules:
        return pl.lit(None, pl.String)
    return pl.coalesce([pl.when(broken(rule)).then(pl.lit(rule.text)) for rule in rules])
