"""Publishes the newest state of every item in the lake to Kafka's compacted topic `shop.items`.

Reads the lake, writes Kafka (creating the topics if they are not there). Run: `python -m pipelines.publish_catalogue`.
Publishing twice changes nothing: the states and their event ids are the same.
"""

from __future__ import annotations

import time

from adapters import kafka
from adapters.catalogue import TOPIC, newest_states
from adapters.errors import MinimartError, Overloaded, Unavailable
from feature_repo import events
from settings import Settings, load_settings


def main() -> None:
    try:
        publish(load_settings())
    except MinimartError as error:
        raise SystemExit(f"publish_catalogue: {error.detail}") from None


def publish(settings: Settings, *, timeout_s: float = 120.0) -> int:
    """Returns how many items were published. Raises Unavailable when Kafka does not take them in `timeout_s`."""
    began = time.monotonic()
    items = newest_states(settings.lake)
    if not items:
        raise Unavailable(f"no items in {settings.lake}; run pipelines.seed_history or pipelines.import_data first")
    kafka.ensure_topics(settings.kafka, settings.kafka_partitions)
    publisher = kafka.KafkaPublisher(settings.kafka, client_id="publish-catalogue")
    try:
        for item in items:
            while True:
                try:
                    publisher.publish(TOPIC, item.key(), events.encode(item))
                    break
                except Overloaded:
                    if time.monotonic() - began > timeout_s:
                        raise
                    time.sleep(0.05)
        publisher.flush(max(1.0, timeout_s - (time.monotonic() - began)))
    finally:
        publisher.close()
    print(f"catalogue: {len(items):,} items published to {TOPIC} ({time.monotonic() - began:.1f} s)")
    return len(items)


if __name__ == "__main__":
    main()
