"""The kinds of quality rules that a contract may state. Values only; what they mean to an event is in `edge.py`.

A row rule judges one row by itself: at the edge an event that breaks it is refused, in an import its row goes into
quarantine, in batch its share of rows is held to `most_broken`. A table rule judges rows together, in batch alone.
A field of a list's elements is written `lines[].price_cents`; a missing value never breaks a row rule.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Severity = Literal["warn", "fail"]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule"):
    """What all rules say: how bad a breach is, and why the rule is there."""

    severity: Severity = "fail"
    why: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the contract that the rule names."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """What must hold, in words."""
        raise NotImplementedError


class RowRule(Rule, frozen=True, kw_only=True):
    """`edge`: the collector refuses what breaks it. `most_broken`: the share of rows that may break it in batch."""

    edge: bool = True
    most_broken: float = 0.0


class Range(RowRule, frozen=True, kw_only=True, tag="range"):
    """A number between `least` and `most`, both allowed, in the field's unit."""

    field: str
    least: float
    most: float

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError(f"range of {self.field}: least {self.least:g} is above most {self.most:g}")

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,)

    @property
    def text(self) -> str:
        return f"{self.field} from {self.least:,.0f} to {self.most:,.0f}"


class Allowed(RowRule, frozen=True, kw_only=True, tag="allowed"):
    """One of a closed list of values."""

    field: str
    values: tuple[str, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,)

    @property
    def text(self) -> str:
        return f"{self.field} is one of {', '.join(self.values)}"


class Together(RowRule, frozen=True, kw_only=True, tag="together"):
    """Where `field` says something, `needs` must say something too. Both are fields of the event itself."""

    field: str
    needs: str

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field, self.needs)

    @property
    def text(self) -> str:
        return f"{self.field} only together with {self.needs}"


class Distinct(RowRule, frozen=True, kw_only=True, tag="distinct"):
    """No element of a list of plain values stands in it twice."""

    field: str

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,)

    @property
    def text(self) -> str:
        return f"{self.field} without repetition"


class NullShare(Rule, frozen=True, kw_only=True, tag="null_share"):
    """At most this share of the rows leave an optional field empty."""

    field: str
    most: float

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,)

    @property
    def text(self) -> str:
        return f"{self.field} empty in at most {self.most:.0%} of the rows"


class Unique(Rule, frozen=True, kw_only=True, tag="unique"):
    """At most this share of the rows repeat the field of an earlier one."""

    field: str
    most_repeated: float = 0.0

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,)

    @property
    def text(self) -> str:
        return f"{self.field} repeated in at most {self.most_repeated:.1%} of the rows"


class Refers(Rule, frozen=True, kw_only=True, tag="refers"):
    """At least this share of the values stand in a field of another contract's table. Missing values do not count."""

    field: str
    to: str
    to_field: str
    least: float = 1.0

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,)

    @property
    def text(self) -> str:
        return f"{self.field} known in {self.to}.{self.to_field} for at least {self.least:.1%} of the rows"


class Distribution(Rule, frozen=True, kw_only=True, tag="distribution"):
    """The values spread as in the window of the same length before: a population stability index of at most this."""

    field: str
    most_psi: float = 0.25

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,)

    @property
    def text(self) -> str:
        return f"{self.field} spread as in the window before (PSI at most {self.most_psi:g})"


AnyRule = Range | Allowed | Together | Distinct | NullShare | Unique | Refers | Distribution
ROW_RULES: Final = (Range, Allowed, Together, Distinct)
