"""A reader that serves while workers die: reads vectors as the recommender does and logs each, with its position.

    python -m pipelines.parity.reader SAMPLE.json SEED

Vectors go through the decision log to Kafka and so into the lake. A vector is logged with the offsets up to which its
partition had counted; they are read before and after the tiles and must be the same, for a commit changes both at once.
Ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from adapters.decision_log import DecisionLog
from adapters.errors import Unavailable
from adapters.feature_state import FeatureState
from adapters.kafka import KafkaPublisher, partition_of
from adapters.online_store import OnlineStore
from feature_repo import tiles
from feature_repo.layout import layout_of
from feature_repo.plan import FeaturePlan, ViewPlan
from settings import Settings, load_settings

PAUSE_S: Final = 0.05
JUMPS: Final = (0, 0, 0, 1, 999, 60_000, 3_600_000, 86_400_000, 7 * 86_400_000)  # ms
Position = list[tuple[str, int, int]]  # topic, partition, next offset


class Reader:
    """Reads one vector at a time. `skipped` counts those between whose two looks at the offsets a commit came."""

    def __init__(self, settings: Settings, plan: FeaturePlan, sample: Mapping[str, list[list[str]]], seed: int) -> None:
        self._settings, self._plan, self._rng = settings, plan, random.Random(seed)
        self._sample = [(view, tuple(key)) for view, keys in sample.items() for key in keys]
        self._state = FeatureState(settings.redis, plan)
        self._store = OnlineStore(settings.redis, plan, timeout_ms=2_000)
        self.read = self.skipped = 0

    async def vector(self) -> dict[str, Any] | None:
        """A decision's record with one vector, or None where a commit came in between. Raises Unavailable."""
        view_name, key = self._rng.choice(self._sample)
        view = self._plan.view(view_name)
        before = self._position(view, key)
        (packed,) = await self._store.read(view_name, [key])
        if self._position(view, key) != before:
            self.skipped += 1
            return None
        state = tiles.unpack(layout_of(view), packed)
        # Tiles may be read at any time not before the last arrival that they have counted.
        now = (state.arrival if state else time.time_ns() // 1_000_000) + self._rng.choice(JUMPS)
        self.read += 1
        values = tiles.windows(view, packed, now)
        return {"request_id": f"parity-{self.read}", "event_time": now, "now_ms": now, "user_id": key[0],
                "view": view_name, "key": list(key), "position": before,
                "features": {name: _plain(value) for name, value in values.items()}}

    async def close(self) -> None:
        self._state.close()
        await self._store.close()

    def _position(self, view: ViewPlan, key: tuple[str, ...]) -> Position:
        partition = partition_of(key[0], self._settings.kafka_partitions)
        stands = self._state.standing(partition)
        if view.rekeyed:
            return sorted((topic, source, end) for (topic, source), end in stands.sources.items())
        return sorted((topic, partition, end) for topic, end in stands.offsets.items())


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


async def serve(reader: Reader, log: DecisionLog, stop: asyncio.Event) -> None:
    """Log vectors until `stop`."""
    while not stop.is_set():
        try:
            record = await reader.vector()
        except Unavailable:
            await asyncio.sleep(0.5)
            continue
        if record is not None and record["position"]:
            log.write(lambda record=record: record)  # type: ignore[misc]
        await asyncio.sleep(PAUSE_S)


async def _run(sample: Path, seed: int) -> None:
    settings = load_settings()
    plan = FeaturePlan.load(settings.features / "plan.json")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    publisher = KafkaPublisher(settings.kafka, client_id="parity-reader")
    log = DecisionLog(publisher, settings.lake)
    reader = Reader(settings, plan, json.loads(sample.read_text()), seed)
    await serve(reader, log, stop)
    print(f"{reader.read} vectors read, {reader.skipped} skipped", flush=True)
    log.close()
    publisher.flush(30)
    publisher.close()
    await reader.close()


def main() -> None:
    asyncio.run(_run(Path(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
