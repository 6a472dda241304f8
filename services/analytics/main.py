"""Wires the consumer: the store, Kafka, the probes."""

from __future__ import annotations

import signal

from adapters.analytics import open_store
from adapters.crash_points import crash_at
from adapters.kafka import KafkaPublisher
from adapters.telemetry import setup_logging
from adapters.web import side_server
from services.analytics.consumer import Consumer
from services.analytics.write import SOURCE
from settings import Settings, load_settings


def build(settings: Settings) -> Consumer:
    """A consumer that connects to nothing until it runs."""
    return Consumer(open_store(settings, timeout_s=35.0), settings.kafka,
                    KafkaPublisher(settings.kafka, client_id=SOURCE), crash=crash_at(settings.crash_point))


def main() -> None:
    settings = load_settings()
    setup_logging(SOURCE, settings.log_level)
    consumer = build(settings)
    server = side_server(SOURCE, settings.port("analytics"), lambda: consumer.status, host=settings.host)

    def end(number: int, frame: object) -> None:
        consumer.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    consumer.run()
    server.close()
