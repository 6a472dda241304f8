"""The events as Flink tables: columns from the event types, and as much of their checks as SQL can say. Pure.

What SQL cannot say: unknown fields are not refused, a number written as text is read as a number, a bad line of an
order is left out without its order. The collector refuses all of these before they reach Kafka.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from feature_repo import events
from feature_repo.plan import ELEMENT_NAME


def relation(topic: str, each: str = "") -> str:
    """The view of a topic's accepted events, or of the elements of one of their lists."""
    return "_".join([*topic.replace("-", "_").split("."), *([each] if each else [])])


def table(topic: str, options: Mapping[str, str]) -> str:
    """CREATE TABLE of what lies in a topic: its fields, where and when the record arrived."""
    listed = [f"`{f.encode_name}` {_type(f.type)}" for f in _of(topic)]
    meta = ["_partition INT METADATA FROM 'partition' VIRTUAL",
            "_arrival TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL", "_now AS PROCTIME()"]
    return create(f"{relation(topic)}_in", ["`type` STRING", *listed, *meta], options)


def create(name: str, listed: Iterable[str], options: Mapping[str, str]) -> str:
    """A CREATE TABLE statement."""
    inside = ",\n  ".join(listed)
    given = ", ".join(f"{text(k)} = {text(v)}" for k, v in options.items())
    return f"CREATE TEMPORARY TABLE {name} (\n  {inside}\n) WITH ({given})"


def fields(topic: str) -> str:
    """The fields of an event, with defaults in place of missing ones."""
    return ", ".join(_defaulted(f, f"`{f.encode_name}`") for f in _of(topic))


def checks(topic: str) -> str:
    """The condition under which a row of the topic's table is an event."""
    tag = text(str(_struct(topic).tag))
    return " AND ".join([f"`type` = {tag}", *(c for f in _of(topic) for c in _checks(f, f"`{f.encode_name}`"))])


def elements(topic: str, each: str) -> str:
    """The view with a row per element of a list field; the element's fields win over the event's."""
    of = next(f for f in _of(topic) if f.encode_name == each)
    inner = _item(of.type)
    if isinstance(inner, inspect.StructType):
        own = {f.encode_name: _defaulted(f, f"u.`{f.encode_name}`") for f in inner.fields}
        names = ", ".join(f"`{f.encode_name}`" for f in inner.fields)
        good = " AND ".join(c for f in inner.fields for c in _checks(f, f"u.`{f.encode_name}`")) or "TRUE"
    else:
        names, good = f"`{ELEMENT_NAME[each]}`", "TRUE"
        own = {ELEMENT_NAME[each]: f"u.{names}"}
    outer = [f"e.`{f.encode_name}`" for f in _of(topic) if f.encode_name not in own and f.encode_name != each]
    return (f"CREATE TEMPORARY VIEW {relation(topic, each)} AS\n"
            f"SELECT {', '.join(outer)}, e.arrival, {', '.join(own.values())}\n"
            f"FROM {relation(topic)} AS e CROSS JOIN UNNEST(e.`{each}`) AS u ({names}) WHERE {good}")


def text(value: str) -> str:
    """A literal."""
    return "'" + value.replace("'", "''") + "'"


def _struct(topic: str) -> inspect.StructType:
    found = inspect.type_info(next(e for e in events.EVENTS if e.topic == topic))
    assert isinstance(found, inspect.StructType)
    return found


def _of(topic: str) -> tuple[inspect.Field, ...]:
    return _struct(topic).fields


def _bare(kind: inspect.Type) -> inspect.Type:
    """The type of a value that is there, without its annotations."""
    if isinstance(kind, inspect.Metadata):
        return _bare(kind.type)
    if isinstance(kind, inspect.UnionType):
        return _bare(next(t for t in kind.types if not isinstance(t, inspect.NoneType)))
    return kind


def _item(kind: inspect.Type) -> inspect.Type:
    of = _bare(kind)
    assert isinstance(of, inspect.ListType)
    return _bare(of.item_type)


def _type(kind: inspect.Type) -> str:
    of = _bare(kind)
    if isinstance(of, inspect.ListType):
        return f"ARRAY<{_type(of.item_type)}>"
    if isinstance(of, inspect.StructType):
        return "ROW<" + ", ".join(f"`{f.encode_name}` {_type(f.type)}" for f in of.fields) + ">"
    known = {"StrType": "STRING", "IntType": "BIGINT", "BoolType": "BOOLEAN", "FloatType": "DOUBLE"}
    try:
        return known[type(of).__name__]
    except KeyError:
        raise ValueError(f"no column type for {of}; there are {', '.join(known)}") from None


def _defaulted(f: inspect.Field, column: str) -> str:
    if f.default in (msgspec.NODEFAULT, None):
        return f"{column} AS `{f.encode_name}`" if not column.startswith("`") else column
    literal = text(f.default) if isinstance(f.default, str) else str(f.default).upper()
    return f"COALESCE({column}, {literal}) AS `{f.encode_name}`"


def _checks(f: inspect.Field, column: str) -> list[str]:
    said = _said(_bare(f.type), column)
    if f.required:
        return [f"{column} IS NOT NULL", *said]
    return [f"({column} IS NULL OR {' AND '.join(said)})"] if said else []


def _said(of: inspect.Type, column: str) -> list[str]:
    """What a value of a type must satisfy when it is there."""
    if isinstance(of, inspect.ListType):
        item = _bare(of.item_type)
        found = _within(f"CARDINALITY({column})", of.min_length, of.max_length)
        if isinstance(item, inspect.StrType) and item.pattern:
            # one match over the elements in a row: a comma is in no id, and a missing element becomes "!"
            inner = item.pattern.removeprefix("^").removesuffix("$")
            found.append(f"REGEXP(ARRAY_JOIN({column}, ',', '!'), {text(f'^{inner}(,{inner})*$')})")
        return found
    if isinstance(of, inspect.StrType):
        found = _within(f"CHAR_LENGTH({column})", of.min_length, of.max_length)
        return found + ([f"REGEXP({column}, {text(of.pattern)})"] if of.pattern else [])
    if isinstance(of, inspect.IntType):
        return _within(column, of.ge, of.le)
    return []


def _within(what: str, low: Any, high: Any) -> list[str]:
    return [f"{what} >= {low}"] * (low is not None) + [f"{what} <= {high}"] * (high is not None)
