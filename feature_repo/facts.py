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
_Get = Callable[[Any], tuple[Any, ...]]


def extractor(view: ViewPlan, feed: Feed) -> Extract:
    """A function from an event of the feed's topic to its rows; rows whose key has a missing part are left out."""
    fields = fields_of(view, feed)
    flat = [name for names in fields for name in names]
    width = len(view.join_keys)
    products = [names for names in feed.values if len(names) > 1]
    if feed.each:
        return _exploded(feed, flat, width, fields if products else [])
    get = _getter(flat)
    if not products:
        if width == 1 and len(flat) == 1:
            one = attrgetter(flat[0])
            return lambda event: [] if (key := one(event)) is None else [((key,), ())]

        def rows(event: events.Event) -> list[Row]:
            found = get(event)
            key = found[:width]
            return [] if None in key else [(key, found[width:])]

        return rows

    def multiplied(event: events.Event) -> list[Row]:
        found = _multiply(get(event), fields)
        return [] if None in found[:width] else [(found[:width], found[width:])]

    return multiplied


def fields_of(view: ViewPlan, feed: Feed) -> list[tuple[str, ...]]:
    """The fields that the key and then the values of a row are made of."""
    return [*((name,) for name in view.join_keys), *feed.values]


def on_element(feed: Feed, name: str) -> bool:
    """Whether a field is taken from the exploded element rather than the event. Raises ValueError if from neither."""
    event_type = _event_type(feed.topic)
    if feed.each:
        if ELEMENT_NAME.get(feed.each) == name:
            return True
        element = typing.get_args(typing.get_type_hints(event_type)[feed.each])[0]
        if name in getattr(element, "__struct_fields__", ()):
            return True
    if name not in event_type.__struct_fields__:
        raise ValueError(f"{feed.topic} has no field {name!r}")
    return False


def check_types(view: ViewPlan, feeds: typing.Iterable[Feed]) -> None:
    """Raise ValueError if a feature is declared over a column of the wrong type, e.g. the sum of a text."""
    types: dict[str, set[type]] = {}
    for feed in feeds:
        for column in view.columns:
            for source in column.sources:
                if (source.topic, source.each) == (feed.topic, feed.each):
                    types.setdefault(column.name, set()).update(_type_of(feed, name) for name in source.fields)
    for feature in view.declared:
        takes = feature.aggregation.takes
        wanted = {"number": {int}, "text": {str}}.get(takes)
        for name in feature.columns:
            found = types[name]
            if (wanted and found != wanted) or (feature.function in ("ratio", "decayed") and found - {int}):
                said = " or ".join(sorted(t.__name__ for t in found)) or "nothing"
                needed = "text" if takes == "text" else "whole numbers"
                raise ValueError(f"{feature.name}: {feature.function} takes {needed}, {name} holds {said}")


def _event_type(topic: str) -> type[events.Event]:
    found = next((e for e in events.EVENTS if e.topic == topic), None)
    if found is None:
        raise ValueError(f"no event has the topic {topic!r}; there are {', '.join(e.topic for e in events.EVENTS)}")
    return found


def _type_of(feed: Feed, name: str) -> type:
    """int, str, ...: what a field holds when it is there."""
    hints = typing.get_type_hints(_event_type(feed.topic))
    if not on_element(feed, name):
        hint = hints[name]
    else:
        element = typing.get_args(hints[feed.each])[0]
        hint = element if ELEMENT_NAME.get(feed.each) == name else typing.get_type_hints(element)[name]
    choices = [a for a in typing.get_args(hint) if a is not type(None)] or [hint]
    found: type = choices[0]
    return found


def _exploded(feed: Feed, flat: list[str], width: int, fields: list[tuple[str, ...]]) -> Extract:
    """Rows of a list field: what the event says is read once, the rest of each element."""
    each, inner = feed.each, [on_element(feed, name) for name in flat]
    if flat == [ELEMENT_NAME.get(each)]:
        return lambda event: [((element,), ()) for element in getattr(event, each)]
    outer = _getter([name for name, of_element in zip(flat, inner, strict=True) if not of_element])
    names = [name for name, of_element in zip(flat, inner, strict=True) if of_element]
    plain = names == [ELEMENT_NAME.get(each)]
    get: _Get = (lambda element: (element,)) if plain else _getter(names)
    # Both parts together, back in the order of `flat`.
    order = [i for i, of_element in enumerate(inner) if not of_element] + [i for i, e in enumerate(inner) if e]
    back = [order.index(i) for i in range(len(flat))]
    straight = back == sorted(back)

    def rows(event: events.Event) -> list[Row]:
        given, out = outer(event), []
        for element in getattr(event, each):
            found = given + get(element)
            if not straight:
                found = tuple([found[i] for i in back])
            if fields:
                found = _multiply(found, fields)
            if None not in found[:width]:
                out.append((found[:width], found[width:]))
        return out

    return rows


def _getter(names: list[str]) -> _Get:
    """The attributes as a tuple, whatever their number."""
    if not names:
        return lambda event: ()
    if len(names) == 1:
        one = attrgetter(names[0])
        return lambda event: (one(event),)
    return attrgetter(*names)


def _multiply(found: tuple[Any, ...], fields: list[tuple[str, ...]]) -> tuple[Any, ...]:
    """Pairs of fields multiplied; missing if one of them is."""
    out, at = [], 0
    for names in fields:
        if len(names) == 1:
            out.append(found[at])
        else:
            one, other = found[at:at + 2]
            out.append(None if one is None or other is None else one * other)
        at += len(names)
    return tuple(out)
