"""The decision log: every answer with what it was made from, sent to Kafka without making the shopper wait.

A record is one JSON object. The ranker's rows lie in `rank.features_base64`: base64 of zlib of little-endian float32,
column by column ([features, n]), which packs better than rows do. Knows nothing of how a decision is made.
"""

from __future__ import annotations

import base64
import queue
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import lz4.frame
import numpy as np
import orjson
import structlog
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from adapters.errors import MinimartError, Overloaded
from adapters.event_lake import find_decision
from feature_repo.events import DECISIONS, is_id

Record = Mapping[str, Any]

DECISIONS_LOGGED: Final = Counter("minimart_decisions_total", "Decisions by what became of their record", ["outcome"])
DECISIONS_WAITING: Final = Gauge(
    "minimart_decisions_waiting", "Decisions not yet acknowledged by Kafka", multiprocess_mode="livesum"
)
STALLED_S: Final = 2.0  # Kafka counts as down when it has acknowledged nothing for so long while records wait
_log = structlog.get_logger()


class Sink(Protocol):
    """The part of adapters.kafka.Publisher that is needed here."""

    def publish(self, topic: str, key: str, value: bytes, *, timestamp_ms: int | None = None) -> None:
        """Never blocks. Raises Overloaded when its buffer is full."""

    def stalled_s(self) -> float:
        """Seconds without an acknowledgement while records wait."""

    @property
    def outstanding(self) -> int:
        """Records not yet acknowledged."""


class DecisionLog:
    """Builds, packs and publishes records in a thread of its own; keeps the last `keep` to be looked up by id.

    They are kept packed in memory, or where several workers answer as files of the folder that they `shared`, so that
    each finds what another one answered.
    """

    def __init__(
        self, sink: Sink, lake: Path, *, waiting: int = 256, keep: int = 1000, shared: Path | None = None
    ) -> None:
        self._sink, self._lake, self._keep = sink, lake, keep
        self._shared = None if shared is None else shared / "decisions"
        if self._shared is not None:
            self._shared.mkdir(exist_ok=True)
        self._queue: queue.Queue[Callable[[], Record] | None] = queue.Queue(maxsize=waiting)
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="decision-log", daemon=True)
        self._thread.start()

    def write(self, build: Callable[[], Record]) -> bool:
        """Take a record to be built later; false, and counted, when too many wait. Never blocks."""
        try:
            self._queue.put_nowait(build)
        except queue.Full:
            DECISIONS_LOGGED.labels("dropped").inc()
            return False
        return True

    @property
    def stalled(self) -> bool:
        """Whether Kafka takes no records just now."""
        return self._sink.stalled_s() > STALLED_S

    def find(self, request_id: str) -> bytes | None:
        """A record as JSON, from memory, the lake, or what is just being built; None if it is nowhere. Reads files and
        may wait for a second: not for the event loop."""
        if (held := self._held(request_id)) is not None:
            return held
        if (found := find_decision(self._lake, request_id)) is not None:
            return orjson.dumps(found)
        self.settle(1.0)
        return self._held(request_id)

    def _held(self, request_id: str) -> bytes | None:
        with self._lock:
            packed = self._recent.get(request_id)
        if not packed and self._shared is not None and is_id(request_id):
            with suppress(FileNotFoundError):
                packed = (self._shared / request_id).read_bytes()
        return lz4.frame.decompress(packed) if packed else None

    def _hold(self, request_id: str, packed: bytes) -> None:
        """Keep a packed record, and let go of the oldest of ours beyond `keep`. Another one's file appears whole."""
        if self._shared is not None:
            part = self._shared / f".{request_id}"
            part.write_bytes(packed)
            part.replace(self._shared / request_id)
            packed = b""
        with self._lock:
            self._recent[request_id] = packed
            gone = [self._recent.popitem(last=False)[0] for _ in range(len(self._recent) - self._keep)]
        if self._shared is not None:
            for old in gone:
                (self._shared / old).unlink(missing_ok=True)

    def settle(self, timeout_s: float) -> None:
        """Wait until what was written so far has been handed to Kafka's client."""
        until = time.monotonic() + timeout_s
        while self._queue.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)

    def close(self) -> None:
        """Publish what waits, then stop."""
        self.settle(3.0)
        self._queue.put(None)
        self._thread.join(3.0)

    def _work(self) -> None:
        while (build := self._queue.get()) is not None:
            try:
                DECISIONS_LOGGED.labels(self._publish(build())).inc()
            except Exception:  # noqa: BLE001 one bad record must not stop the log
                _log.exception("decision_not_logged")
                DECISIONS_LOGGED.labels("failed").inc()
            finally:
                self._queue.task_done()
            DECISIONS_WAITING.set(self._queue.qsize() + self._sink.outstanding)

    def _publish(self, record: Record) -> str:
        value, compressed = packed(record)
        self._hold(record["request_id"], compressed)
        try:
            self._sink.publish(DECISIONS, record["request_id"], value)
        except Overloaded:
            return "dropped"
        except MinimartError as error:
            _log.warning("decision_refused", why=error.detail)
            return "failed"
        return "published"


def packed(record: Record) -> tuple[bytes, bytes]:
    """A record as JSON, and that compressed for keeping: by LZ4, which is several times quicker than zlib."""
    value = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
    return value, lz4.frame.compress(value)


def pack_features(rows: NDArray[np.float32]) -> str:
    """Rows float32 [n, F] as the text of `features_base64`."""
    columns = np.ascontiguousarray(rows.T, dtype="<f4")
    return base64.b64encode(zlib.compress(columns.tobytes(), 1)).decode()


def features_of(record: Record) -> NDArray[np.float32]:
    """The ranker's rows float32 [n, F] of a record, in the order of rank.item_ids. Raises KeyError if it has none."""
    rank = record["rank"]
    flat = np.frombuffer(zlib.decompress(base64.b64decode(rank["features_base64"])), dtype="<f4")
    return np.ascontiguousarray(flat.reshape(-1, len(rank["item_ids"])).T)
