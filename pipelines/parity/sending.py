"""The stream into Kafka in the background, and everything back out of it as it lies there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Final

from adapters.errors import Unavailable
from adapters.kafka import KafkaPublisher, read_topic
from pipelines.parity.generate import Stream

BUFFERED: Final = 40_000
Record = tuple[int, int, bytes]  # offset, arrival, payload


class Sender:
    """Sends slices of a stream, in order; `sent` counts what was handed over."""

    def __init__(self, bootstrap: str, stream: Stream) -> None:
        self._publisher = KafkaPublisher(bootstrap, client_id="parity", linger_ms=20, max_buffer=BUFFERED + 10_000)
        self._stream = stream
        self._thread: threading.Thread | None = None
        self._failed: Exception | None = None
        self.sent = 0

    def begin(self, until: int) -> None:
        """Send on up to record `until`, in the background."""
        self._thread = threading.Thread(target=self._send, args=(self.sent, until), name="parity-sender", daemon=True)
        self._thread.start()

    def finish(self, timeout_s: float = 300) -> None:
        """Wait until all that was begun is acknowledged. Raises Unavailable."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._failed is not None:
            raise Unavailable(f"sending stopped: {self._failed}")
        self._publisher.flush(timeout_s)

    def close(self) -> None:
        self._publisher.close()

    def _send(self, first: int, until: int) -> None:
        topics, keys, payloads, arrivals = self._stream[:4]
        try:
            for at in range(first, until):
                while at % 500 == 0 and self._publisher.outstanding > BUFFERED:
                    time.sleep(0.01)
                self._publisher.publish(topics[at], keys[at], payloads[at], timestamp_ms=arrivals[at])
                self.sent = at + 1
        except Exception as error:  # noqa: BLE001 told by `finish`, in the thread that waits
            self._failed = error


def read_back(bootstrap: str, topic: str) -> Iterator[tuple[int, list[Record]]]:
    """(partition, its records in order of offset) of a topic. Raises Unavailable."""
    found: dict[int, list[Record]] = {}
    for record in read_topic(bootstrap, topic, timeout_s=60):
        found.setdefault(record.partition, []).append((record.offset, record.timestamp_ms, record.value or b""))
    for partition in sorted(found):
        yield partition, sorted(found[partition], key=lambda r: r[0])
