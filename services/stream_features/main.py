"""Wires the stream worker: the compiled plan, Redis, Kafka, the probes."""

from __future__ import annotations

import gc
import signal
import threading
from pathlib import Path

import structlog

from adapters.crash_points import crash_at
from adapters.feature_state import FeatureState
from adapters.kafka import KafkaPublisher
from adapters.telemetry import setup_logging
from adapters.web import side_server
from feature_repo.plan import FeaturePlan
from services.stream_features.shard import SOURCE
from services.stream_features.worker import Worker
from settings import Settings, load_settings


def wait_for_plan(path: Path, stop: threading.Event) -> FeaturePlan | None:
    """The plan once `pipelines.apply_features` has written it; None if stopped before."""
    while not stop.is_set():
        if path.exists():
            return FeaturePlan.load(path)
        stop.wait(0.5)
    return None


def build(settings: Settings, plan: FeaturePlan) -> Worker:
    """A worker that connects to nothing until it runs."""
    publisher = KafkaPublisher(settings.kafka, client_id=SOURCE, linger_ms=0, max_buffer=200_000)
    return Worker(
        plan, FeatureState(settings.redis, plan), publisher, bootstrap=settings.kafka, lake=settings.lake,
        partitions=settings.kafka_partitions, instance=settings.stream_worker, crash=crash_at(settings.crash_point),
        outdated=lambda: FeaturePlan.load(plan_path(settings)).sha256 != plan.sha256)


def plan_path(settings: Settings) -> Path:
    return settings.features / "plan.json"


def main() -> None:
    settings = load_settings()
    setup_logging(SOURCE, settings.log_level)
    stop = threading.Event()
    path = plan_path(settings)
    status: dict[str, str] = {"plan": f"{path} is not there; run `python -m pipelines.apply_features`"}
    workers: list[Worker] = []
    server = side_server(SOURCE, settings.port("stream_features"), lambda: workers[0].status if workers else status,
                         host=settings.host)

    def end(number: int, frame: object) -> None:
        stop.set()
        for worker in workers:
            worker.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    gc.set_threshold(200_000, 20, 50)  # states live long: collecting them often costs a tenth of the throughput
    while (plan := wait_for_plan(path, stop)) is not None:
        workers[:] = [build(settings, plan)]
        structlog.get_logger().info("starting", feature_set=plan.version)
        workers[0].run()
        workers[0].close()
    server.close()
