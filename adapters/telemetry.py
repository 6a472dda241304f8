"""Logs as JSON lines on stdout, and the metrics that every process shares. Names start with `minimart_`.

Metric labels are closed sets (route templates, stages, reasons, versions), never a user, an item or a request id.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Final

import structlog
from prometheus_client import Counter, Gauge, Histogram

SECONDS_BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.02,
    0.03,
    0.04,
    0.06,
    0.08,
    0.1,
    0.15,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)

HTTP_REQUESTS: Final = Counter(
    "minimart_http_requests_total", "HTTP requests answered", ["service", "route", "method", "status"]
)
HTTP_SECONDS: Final = Histogram(
    "minimart_http_request_seconds",
    "Seconds until the answer ended",
    ["service", "route", "method"],
    buckets=SECONDS_BUCKETS,
)
HTTP_IN_FLIGHT: Final = Gauge(
    "minimart_http_in_flight", "HTTP requests being answered now", ["service"], multiprocess_mode="livesum"
)

STAGE_SECONDS: Final = Histogram(
    "minimart_stage_seconds", "Seconds that one stage of the funnel took", ["stage"], buckets=SECONDS_BUCKETS
)
DEGRADED: Final = Counter("minimart_degraded_total", "Answers given without one of their parts", ["reason"])
MODEL_VERSION: Final = Gauge(
    "minimart_model_version_info", "1 for the version in use", ["model", "version"], multiprocess_mode="livemax"
)
EVENTS: Final = Counter(
    "minimart_events_total", "Events by topic and what became of them", ["service", "topic", "outcome"]
)
CONSUMER_LAG: Final = Gauge(
    "minimart_consumer_lag_records", "Records not yet consumed", ["service", "topic", "partition"]
)
FEATURE_AGE_SECONDS: Final = Gauge("minimart_feature_age_seconds", "Seconds since the newest event that features saw")
NEIGHBOUR_ERRORS: Final = Counter(
    "minimart_neighbour_errors_total", "Calls to a neighbour that failed or came late", ["service", "neighbour"]
)


def setup_logging(service: str, level: str = "info") -> None:
    """One JSON object a line on stdout, for our own logs and for libraries' (from warning up).

    `level` is one of debug, info, warning, error. Log with `structlog.get_logger().info("event_name", key=value)`.
    """
    number = getattr(logging, level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_named(service), _brief, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def _brief(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What a library caught, in a line: the error, and the file and line that raised it."""
    _, error, trace = event.pop("exc_info", None) or (None, None, None)
    if isinstance(error, BaseException):
        event["error"] = f"{type(error).__name__}: {error}"
        if frames := traceback.extract_tb(trace):
            event["at"] = f"{frames[-1].filename}:{frames[-1].lineno}"
    return event


def _named(service: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        record = event.get("_record")
        return {**event, "service": service, "logger": record.name if isinstance(record, logging.LogRecord) else ""}

    return add


def set_model_version(model: str, version: str, previous: str | None = None) -> None:
    """Say in the metrics that `version` of `model` is in use now, and that `previous` is not any more."""
    if previous is not None and previous != version:
        MODEL_VERSION.labels(model, previous).set(0)
    MODEL_VERSION.labels(model, version).set(1)
