"""A data contract as a value: what a topic or an offline table promises to those who read it, and who promises it.

A contract checks itself and is held to the schema of its event: every field must have a meaning and every number a
unit, so that a field cannot appear without anybody saying what it is. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Final, Literal

import msgspec

from feature_repo.contracts.rules import ROW_RULES, AnyRule, RowRule

Kind = Literal["topic", "table"]
TAG: Final = "type"
"""The field that says which event it is: the same in all, and no part of a contract."""


class ContractBroken(ValueError):
    """A contract file does not say what it must; the message names the file, the field and the fix."""


class Field(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`type` is stated where no event schema states it; `unit` of every number: cents, ms since 1970, pieces, place."""

    meaning: str
    unit: str = ""
    type: str = ""


class Freshness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """While live data comes, the newest record is at most so old (by its arrival)."""

    most_s: int


class Volume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Records of the last whole hour against the median of the whole hours before it.

    Outside of `tolerance` it is a breach, unless chance explains it: see `watch.py`. Without `least_hours` of baseline,
    or when the median is below `least_rows`, nothing is said.
    """

    tolerance: float = 0.10
    baseline_hours: int = 24
    least_hours: int = 3
    least_rows: int = 100


class Announcement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version that readers were told about: on which day, from which day it may be sent, and what changes."""

    version: int
    told: date
    begins: date
    what: str


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a change that breaks readers is made known: so many days before, and where."""

    notice_days: int
    where: str
    announced: tuple[Announcement, ...] = ()

    def notice_of(self, version: int) -> Announcement | None:
        """The announcement of a version; None if there is none."""
        return next((a for a in self.announced if a.version == version), None)


class Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One topic or offline table. `schema` is its event's JSON Schema, or empty: then the fields state their types."""

    name: str
    kind: Kind
    meaning: str
    owner: str
    version: int = 1
    schema: str = ""
    key: str = ""
    path: str = ""
    """Of a table: its file under the platform's home."""
    made_from: tuple[str, ...] = ()
    """Of a table: the topics that it is made from."""
    includes: tuple[str, ...] = ()
    change: Change
    freshness: Freshness | None = None
    volume: Volume | None = None
    fields: dict[str, Field] = {}
    rules: tuple[AnyRule, ...] = ()

    def __post_init__(self) -> None:
        for rule in self.rules:
            if unknown := [name for name in rule.fields if name not in self.fields]:
                raise ContractBroken(f"contract {self.name}: the rule {rule.text!r} names {unknown[0]!r}, which is "
                                     f"none of its fields: {', '.join(self.fields)}")

    @property
    def row_rules(self) -> tuple[RowRule, ...]:
        """The rules that judge a row by itself."""
        return tuple(rule for rule in self.rules if isinstance(rule, ROW_RULES))

    def unit(self, field: str) -> str:
        return self.fields[field].unit


def schema_fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, property) of every field of an event's JSON Schema; those of a list's records as `lines[].price_cents`."""
    yield from _fields(_resolve(schema, schema), schema, "")


def _fields(record: Mapping[str, Any], root: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, found in record.get("properties", {}).items():
        if name == TAG:
            continue
        yield f"{prefix}{name}", found
        if "$ref" in found.get("items", {}):
            yield from _fields(_resolve(found["items"], root), root, f"{prefix}{name}[].")


def _resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    found: Mapping[str, Any] = schema if reference is None else root["$defs"][reference.rsplit("/", 1)[-1]]
    return found


def is_number(field: Mapping[str, Any]) -> bool:
    """Whether a property of a JSON Schema may hold a number."""
    kinds = [field, *field.get("anyOf", ()), field.get("items", {})]
    return any(kind.get("type") in ("integer", "number") for kind in kinds)


def hold_to_schema(contract: Contract, schema: Mapping[str, Any]) -> list[str]:
    """What the contract leaves unsaid of its event's schema, or says of fields that the schema does not have."""
    told = dict(schema_fields(schema))
    wrong = [f"[fields.{name!r}]: the schema has this field; say what it means" for name in told
             if name not in contract.fields]
    wrong += [f"[fields.{name!r}]: the schema has no such field; take it out" for name in contract.fields
              if name not in told]
    wrong += [f"[fields.{name!r}]: the schema states its type; take `type` out"
              for name, field in contract.fields.items() if field.type]
    wrong += [f"[fields.{name!r}]: a number needs its unit" for name, found in told.items()
              if is_number(found) and name in contract.fields and not contract.unit(name)]
    return [f"contract {contract.name}: {line}" for line in wrong]
