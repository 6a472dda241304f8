"""Wires the event log: Kafka, the lake's folder, the probes."""

from __future__ import annotations

import signal

from adapters.kafka import KafkaPublisher
from adapters.telemetry import setup_logging
from adapters.web import side_server
from services.event_log.consumer import SOURCE, EventLog
from settings import Settings, load_settings


def build(settings: Settings) -> EventLog:
    """An event log that connects to nothing until it runs."""
    return EventLog(settings.lake, settings.kafka, KafkaPublisher(settings.kafka, client_id=SOURCE))


def main() -> None:
    settings = load_settings()
    setup_logging(SOURCE, settings.log_level)
    log = build(settings)
    server = side_server(SOURCE, settings.port("event_log"), lambda: log.status, host=settings.host)

    def end(number: int, frame: object) -> None:
        log.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    log.run()
    server.close()
