"""Row rules as checks of one event, compiled once per topic: what the collector asks of every event that comes in.

A check costs a microsecond or two: getters and bounds are bound when it is compiled, nothing is looked up per event.
Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from feature_repo.contracts.contract import Contract
from feature_repo.contracts.rules import Allowed, Distinct, Range, RowRule, Together

ELEMENT = "[]."


class Breach(NamedTuple):
    """A broken rule: the field's path in the event, its value, and what is allowed."""

    field: str
    value: Any
    expected: str


Check = Callable[[Any], Breach | None]
Bad = Callable[[Any], bool]


def compile_checks(contracts: Mapping[str, Contract]) -> dict[str, Check]:
    """Topic -> the first breach of a rule that is held at the edge, None for an event that keeps its contract."""
    return {name: compile_check(c.row_rules) for name, c in contracts.items() if c.schema}


def compile_check(rules: tuple[RowRule, ...], *, edge_only: bool = True) -> Check:
    """One function that applies the rules in order."""
    steps = tuple(_step(rule) for rule in rules if rule.edge or not edge_only)

    def check(event: Any) -> Breach | None:
        for step in steps:
            found = step(event)
            if found is not None:
                return found
        return None

    return check


def _step(rule: RowRule) -> Check:
    match rule:
        case Range(field=field, least=least, most=most):
            return _on(field, lambda v: not least <= v <= most, f"from {least:,.0f} to {most:,.0f}")
        case Allowed(field=field, values=values):
            known = frozenset(values)
            return _on(field, lambda v: v not in known, f"one of {', '.join(values)}")
        case Distinct(field=field):
            return _on(field, lambda v: len(set(v)) != len(v), "each value once")
        case Together(field=field, needs=needs):
            said, needed = attrgetter(field), attrgetter(needs)

            def together(event: Any) -> Breach | None:
                value = said(event)
                if value is None or needed(event) is not None:
                    return None
                return Breach(field, value, f"{needs} too where {field} is said")

            return together
    raise TypeError(f"no check for the rule {rule!r}")


def _on(field: str, bad: Bad, expected: str) -> Check:
    """A check of one field, or of one field of every record of a list. None is no breach."""
    if ELEMENT in field:
        outer, _, inner = field.partition(ELEMENT)
        records, value_of = attrgetter(outer), attrgetter(inner)

        def each(event: Any) -> Breach | None:
            for at, record in enumerate(records(event)):
                value = value_of(record)
                if value is not None and bad(value):
                    return Breach(f"{outer}.{at}.{inner}", value, expected)
            return None

        return each
    get = attrgetter(field)

    def one(event: Any) -> Breach | None:
        value = get(event)
        return Breach(field, value, expected) if value is not None and bad(value) else None

    return one
