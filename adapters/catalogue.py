"""The catalogue in memory: every item's newest state, from the lake's `shop.items`, then from Kafka's compacted topic.

Readers never wait: `get` is a dictionary look-up. While Kafka is away the catalogue stays as it was.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from adapters import event_lake
from adapters.kafka import Record, TopicTail
from feature_repo import events
from feature_repo.events import ItemListed
from settings import Settings

TOPIC: Final = ItemListed.topic
CHANGES: Final = 10_000
"""The newest changes that are remembered one by one."""
_FIELDS: Final = ItemListed.__struct_fields__
_log = structlog.get_logger()


class Catalogue:
    """Items by id. The state with the newest `event_time` wins; a tombstone in Kafka takes the item out."""

    def __init__(self, settings: Settings) -> None:
        self._lake: Path = settings.lake
        self._items: dict[str, ItemListed] = {}
        self._lock = threading.Lock()
        self._changes: deque[tuple[int, str]] = deque()
        self._forgotten = 0
        """Changes up to this version are no longer remembered."""
        self._shown: tuple[int, tuple[ItemListed, ...]] = (0, ())
        self._tail = TopicTail(settings.kafka, (TOPIC,), self._on_record, name="catalogue")
        self.version = 0

    def start(self) -> None:
        """Load the lake's items (seconds at most), then follow Kafka in the background."""
        self.learn(newest_states(self._lake))
        self._tail.start()

    def close(self) -> None:
        self._tail.close()

    @property
    def ready(self) -> bool:
        """Whether there is a catalogue to work with: items are known, or Kafka's topic was read to its end."""
        return bool(self._items) or self._tail.caught_up.is_set()

    @property
    def caught_up(self) -> bool:
        """Whether Kafka's topic, as it was at the start, has been read to its end."""
        return self._tail.caught_up.is_set()

    def get(self, item_id: str) -> ItemListed | None:
        return self._items.get(item_id)

    def title(self, item_id: str) -> str:
        """The item's title, its id where it is not known."""
        item = self.get(item_id)
        return item_id if item is None else item.title

    def __len__(self) -> int:
        return len(self._items)

    def snapshot(self) -> tuple[ItemListed, ...]:
        """All items, in no order; the same tuple until `version` rises."""
        version, shown = self._shown
        if version != self.version:
            with self._lock:
                self._shown = version, shown = self.version, tuple(self._items.values())
        return shown

    def changes_since(self, version: int) -> Mapping[str, ItemListed | None] | None:
        """Items that changed after `version` with their state now, None for those that are gone; None where so many
        changes are not remembered."""
        with self._lock:
            if version < self._forgotten:
                return None
            changed = dict.fromkeys(name for at, name in self._changes if at > version)
            return {name: self._items.get(name) for name in changed}

    def learn(self, states: Iterable[ItemListed]) -> None:
        """Take over states that are at least as new as those known; what just passed the collector, for example."""
        with self._lock:
            before = self.version
            for state in states:
                known = self._items.get(state.item_id)
                if known is None or (state.event_time >= known.event_time and state != known):
                    self._items[state.item_id] = state
                    self._changed(state.item_id, before + 1)

    def _changed(self, item_id: str, version: int) -> None:
        self.version = version
        self._changes.append((version, item_id))
        if len(self._changes) > CHANGES:
            self._forgotten, _ = self._changes.popleft()

    def _on_record(self, record: Record) -> None:
        if record.value is None:
            with self._lock:
                if self._items.pop(record.key, None) is not None:
                    self._changed(record.key, self.version + 1)
            return
        try:
            event = events.decode(TOPIC, record.value)
        except events.EventRejected as error:
            _log.warning("catalogue_record_skipped", offset=record.offset, partition=record.partition, why=str(error))
            return
        assert isinstance(event, ItemListed)
        self.learn((event,))


def newest_states(lake: Path) -> list[ItemListed]:
    """The newest state of every item in the lake; empty when it has none."""
    table = event_lake.scan(lake, TOPIC, columns=list(_FIELDS)).sort_by("event_time")
    newest: dict[str, dict[str, Any]] = {}
    for batch in table.to_batches():
        newest.update((row["item_id"], row) for row in batch.to_pylist())
    return list(_convert(newest.values()))


def _convert(rows: Iterable[dict[str, Any]]) -> Iterator[ItemListed]:
    for row in rows:
        yield msgspec.convert({"type": "item_listed", **{k: v for k, v in row.items() if v is not None}}, ItemListed)
