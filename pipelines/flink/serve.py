"""From the topic of tiles to Redis, in the layout that serving and Feast read: the sink that Flink's SQL has not.

States and offsets are one atomic commit under a token, as the stream worker's are: a second sink fences the first off,
and a Redis that comes back empty is filled again from the beginning of the topic. Reads only what transactions have
committed.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from kafka import TopicPartition
from kafka.errors import KafkaError

from adapters.errors import Unavailable
from adapters.feature_state import Batch, FeatureState
from adapters.kafka import assign_all, connect_consumer
from feature_repo.flink_tiles import KeyTiles, TileKey, decode
from feature_repo.layout import layout_of
from feature_repo.plan import FeaturePlan

SINK: Final = -1
"""Where the progress of this sink stands, beside the stream worker's partitions 0, 1, ..."""
MAX_RECORDS: Final = 5_000
QUIET_S: Final = 60.0
Tell = Callable[[str], None]
Key = tuple[str, tuple[str, ...]]


class TileSink:
    """Reads the topic of tiles and commits it to the online store."""

    def __init__(self, plan: FeaturePlan, state: FeatureState, bootstrap: str, topic: str) -> None:
        self._plan, self._state, self._bootstrap, self._topic = plan, state, bootstrap, topic
        self.records = 0

    def run(self, stop: threading.Event, tell: Tell, *, to_end: bool = False) -> int:
        """Until `stop`, or with `to_end` until everything that was there at the start is committed; returns the
        records read. Raises Fenced when another sink took over, Unavailable when a neighbour goes away."""
        consumer = connect_consumer(self._bootstrap, stop=stop, isolation_level="read_committed")
        if consumer is None:
            return 0
        try:
            return self._consume(consumer, stop, tell, to_end)
        except (KafkaError, OSError) as error:
            raise Unavailable(f"Kafka at {self._bootstrap} stopped answering: {error!r}") from None
        finally:
            consumer.close(autocommit=False, timeout_ms=1_000)

    def _consume(self, consumer: Any, stop: threading.Event, tell: Tell, to_end: bool) -> int:
        token = self._state.claim(SINK)
        progress = self._state.load(SINK)
        offsets = dict(progress.offsets) if progress else {}
        wanted = assign_all(consumer, (self._topic,), stop)
        starts, ends = consumer.beginning_offsets(wanted), consumer.end_offsets(wanted)
        for tp in wanted:
            consumer.seek(tp, max(offsets.get(_name(tp), 0), starts[tp]))
        moved = told = time.monotonic()
        while not stop.is_set():
            polled = consumer.poll(timeout_ms=500, max_records=MAX_RECORDS)
            if polled:
                self._commit([m for messages in polled.values() for m in messages], token,
                             {_name(tp): messages[-1].offset + 1 for tp, messages in polled.items()})
                moved = time.monotonic()
            if to_end and all(consumer.position(tp) >= ends[tp] for tp in wanted):
                break
            if to_end and time.monotonic() - moved > QUIET_S:
                raise Unavailable(f"{self._topic}: nothing came for {QUIET_S:.0f} s and its end is not reached: is a "
                                  "transaction open there? It ends by itself when its time-out has passed")
            if time.monotonic() - told > 2:
                told = time.monotonic()
                tell(f"{self._topic}: {self.records} records in the online store")
        return self.records

    def _commit(self, messages: list[Any], token: str, offsets: dict[str, int]) -> None:
        """One commit: the records' keys are read, changed and written with the offsets after them."""
        found: dict[Key, list[tuple[TileKey, dict[str, Any] | None]]] = defaultdict(list)
        for message in messages:
            at, value = decode(message.key, message.value)
            found[at.view, at.key].append((at, value))
        states: dict[Key, bytes] = {}
        for (key, records), packed in zip(found.items(), self._state.states(found), strict=True):
            held = KeyTiles(layout_of(self._plan.view(key[0])), packed)
            for at, value in records:
                held.put(at, value)
            states[key] = held.packed()
        self._state.commit([Batch(partition=SINK, token=token, states=states, offsets=offsets)],
                           int(time.time() * 1000))
        self.records += len(messages)


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}/{tp.partition}"
