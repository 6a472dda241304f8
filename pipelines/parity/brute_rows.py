"""From an event to the rows of a view, said a second time. Imports nothing of ours but `brute_events`.

A row is one event, or one element of a list field that is exploded; fields of the element win over the event's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from pipelines.parity.brute_events import DEFAULTS, parse

Key = tuple[str, ...]
LINE: Final = ("item_id", "category", "price_cents", "quantity", "seller_id")  # what a line of an order may say


class Feed(NamedTuple):
    """What one topic says to one view: the list field that is exploded, the key's fields, and those of its columns."""

    view: str
    each: str
    key: tuple[str, ...]
    fields: tuple[str, ...]


def keys_of(plan: Mapping[str, Any], topic: str, payload: bytes) -> Iterable[tuple[str, Key]]:
    """(view, key) of everything that a payload says something about; nothing where it is no event."""
    event = parse(topic, payload)
    for view in plan["declared_views"] if event is not None else ():
        for each in {s.get("each", "") for c in view["columns"] for s in c["sources"] if s["topic"] == topic}:
            for element in elements_of(event, each):
                key = key_of(view["join_keys"], event, element)
                if key is not None:
                    yield view["name"], key


def feeds_by_topic(views: Iterable[Mapping[str, Any]], wanted: Collection[str]) -> dict[str, list[Feed]]:
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    keys = {}
    for view in views:
        if view["name"] not in wanted:
            continue
        keys[view["name"]] = tuple(view["join_keys"])
        for source in (s for c in view["columns"] for s in c["sources"]):
            fields = found.setdefault((source["topic"], view["name"], source.get("each", "")), {})
            fields.update(dict.fromkeys(names_of(source)))
    feeds: dict[str, list[Feed]] = defaultdict(list)
    for (topic, view_name, each), fields in found.items():
        feeds[topic].append(Feed(view_name, each, keys[view_name], tuple(fields)))
    return feeds


def column_of(view: Mapping[str, Any], name: str) -> Any:
    return next(c for c in view["columns"] if c["name"] == name)


def names_of(source: Mapping[str, Any]) -> list[str]:
    return source["value"].split("*") if source.get("value") else []


def elements_of(event: Any, each: str) -> Iterable[Any]:
    return event[each] if each else (None,)


def field_of(name: str, event: Any, element: Any) -> Any:
    """A field of the exploded element, else of the event; one element of `item_ids` is an `item_id`."""
    if isinstance(element, str) and name == "item_id":
        return element
    if isinstance(element, dict) and name in LINE:
        return element.get(name, DEFAULTS.get(name))
    return event.get(name, DEFAULTS.get(name))


def key_of(names: Iterable[str], event: Any, element: Any) -> Key | None:
    parts = tuple(field_of(name, event, element) for name in names)
    return None if None in parts else parts


def value_of(source: Mapping[str, Any], event: Any, element: Any) -> Any:
    return product([field_of(name, event, element) for name in names_of(source)])


def product(values: list[Any]) -> Any:
    if not values:
        return 1
    return values[0] if len(values) == 1 else values[0] * values[1]
