"""How old the newest values of each view are, and whether they lag behind the events that came.

The newest events of the lake say which keys changed last; Redis says when each key's value was written. A view whose
newest value is older than the newest event that feeds it is behind: that event is not readable yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow.parquet as pq
import redis

from adapters import event_lake, feast_redis
from adapters.errors import Unavailable
from adapters.online_store import Key, connect
from feature_repo.plan import ELEMENT_NAME, FeaturePlan, ViewPlan
from settings import without_password

NEWEST: Final = 20
"""Events of a feed whose keys are asked for."""


class Age(NamedTuple):
    """`written_ms`: when the newest value was written, None: no live event yet, or Redis has none of its values.

    `waiting_ms`: arrival of the newest event that no value has seen, None where nothing waits.
    """

    written_ms: int | None = None
    waiting_ms: int | None = None


class FeatureAges:
    """Asks one Redis and one lake; connects when first asked."""

    def __init__(self, redis_url: str, lake: Path, timeout_s: float = 1.0) -> None:
        self._client, self._url, self._lake = connect(redis_url, timeout_s), redis_url, lake

    def look(self, plan: FeaturePlan) -> dict[str, Age]:
        """View -> age. Raises Unavailable when Redis does not answer."""
        events = {topic: list(newest_events(self._lake, topic)) for topic in plan.topics}
        asked = {view.name: keys_of(view, events) for view in plan.declared_views}
        pipe = self._client.pipeline(transaction=False)
        for view in plan.declared_views:
            for key in asked[view.name]:
                pipe.hget(feast_redis.redis_key(plan.project, view.join_keys, key), feast_redis.time_field(view.name))
        try:
            found = iter(pipe.execute())
        except (redis.RedisError, OSError) as error:
            raise Unavailable(f"the online store at {without_password(self._url)} did not answer: {error!r}") from None
        return {name: _age(keys, [feast_redis.moment_of(next(found)) for _ in keys]) for name, keys in asked.items()}

    def close(self) -> None:
        self._client.close()


def _age(keys: Mapping[Key, int], written: list[int | None]) -> Age:
    newest = max((at for at in written if at is not None), default=None)
    arrived = max(keys.values(), default=None)
    waits = arrived is not None and (newest is None or newest < arrived)
    return Age(newest, arrived if waits else None)


def newest_events(lake: Path, topic: str, most: int = NEWEST) -> Iterator[dict[str, Any]]:
    """The newest events of a topic that came through Kafka, of every partition, as rows of the lake."""
    last = {part.partition: part for part in event_lake.parts(lake, topic)}
    for part in last.values():
        try:
            table = pq.read_table(part.path, partitioning=None)
        except FileNotFoundError:  # a compaction has just replaced it; the next look finds the new file
            continue
        yield from table.slice(max(0, table.num_rows - most)).to_pylist()


def keys_of(view: ViewPlan, events: Mapping[str, list[dict[str, Any]]]) -> dict[Key, int]:
    """Key -> arrival of its newest event, of a view's newest keys."""
    found: dict[Key, int] = {}
    for topic, each in view.feeds:
        for event in events.get(topic, ()):
            for element in (event[each] or ()) if each else (None,):
                key = tuple(_part(name, each, event, element) for name in view.join_keys)
                if None not in key:
                    found[key] = max(found.get(key, 0), event["_arrival"])
    newest = sorted(found.items(), key=lambda item: -item[1])[:NEWEST]
    return dict(newest)


def _part(name: str, each: str, event: Mapping[str, Any], element: Any) -> Any:
    """One part of a key: of the exploded element where it has the field, else of the event."""
    if isinstance(element, Mapping) and name in element:
        return element[name]
    return element if ELEMENT_NAME.get(each) == name else event.get(name)
