"""What the feature server counts and measures. Labels are closed sets: views of the plan, states, codes."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from adapters.telemetry import NEIGHBOUR_ERRORS, SECONDS_BUCKETS

NAME: Final = "feature_server"
FINE: Final = (0.0005, *SECONDS_BUCKETS)

ROWS: Final = Counter("minimart_feature_rows_total", "Rows answered by view and state", ["view", "state"])
READ_SECONDS: Final = Histogram("minimart_feature_read_seconds", "Seconds that one read of the store took",
                                buckets=FINE)
RPC_SECONDS: Final = Histogram("minimart_grpc_request_seconds", "Seconds until a gRPC request was answered",
                               ["service", "method", "code"], buckets=FINE)
LAST_KNOWN_ROWS: Final = Gauge("minimart_feature_last_known_rows", "Rows kept for when the store is away")
LAST_KNOWN_BYTES: Final = Gauge("minimart_feature_last_known_bytes", "About the memory that these rows take")
STORE_AWAY: Final = Gauge("minimart_feature_store_away", "1 while the online store does not answer")


def store_failed() -> None:
    NEIGHBOUR_ERRORS.labels(NAME, "redis").inc()
