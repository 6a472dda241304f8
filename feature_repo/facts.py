"""From an event to the rows of a view: the key and the column values of each. Pure; compiled once per feed."""

from __future__ import annotations

import typing
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from feature_repo import events
from feature_repo.layout import Feed
from feature_repo.plan import ELEMENT_NAME, ViewPlan

Row = tuple[tuple[str, ...], tuple[Any, ...]]
Extract = Callable[[events.Event], list[Row]]


def extractor(view: ViewPlan, feed: Feed) -> Extract:
    """A function from an event of the feed's topic to its rows; rows whose key has a missing part are left out."""
    key = [_reader(feed, (name,)) for name in view.join_keys]
    values = [_reader(feed, fields) for fields in feed.values]
    each = feed.each

    def rows(event: events.Event) -> list[Row]:
        elements = getattr(event, each) if each else (None,)
        found = ((tuple(k(event, e) for k in key), tuple(v(event, e) for v in values)) for e in elements)
        return [row for row in found if None not in row[0]]

    return rows


def fields_of(view: ViewPlan, feed: Feed) -> list[tuple[str, ...]]:
    """The fields that the key and then the values of a row are made of."""
    return [*((name,) for name in view.join_keys), *feed.values]


def on_element(feed: Feed, name: str) -> bool:
    """Whether a field is taken from the exploded element rather than the event. Raises ValueError if from neither."""
    event_type = next(e for e in events.EVENTS if e.topic == feed.topic)
    if feed.each:
        if ELEMENT_NAME.get(feed.each) == name:
            return True
        element = typing.get_args(typing.get_type_hints(event_type)[feed.each])[0]
        if name in getattr(element, "__struct_fields__", ()):
            return True
    if name not in event_type.__struct_fields__:
        raise ValueError(f"{feed.topic} has no field {name!r}")
    return False


def _reader(feed: Feed, fields: tuple[str, ...]) -> Callable[[Any, Any], Any]:
    if len(fields) == 2:
        one, other = (_reader(feed, (name,)) for name in fields)
        return lambda event, element: one(event, element) * other(event, element)
    name = fields[0]
    if not on_element(feed, name):
        get = attrgetter(name)
        return lambda event, element: get(event)
    if ELEMENT_NAME.get(feed.each) == name:
        return lambda event, element: element
    field = attrgetter(name)
    return lambda event, element: field(element)
