"""The same statements on the image that compose runs: the schema, every named query and the hourly statistics."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from adapters.analytics import Analytics
from adapters.analytics_schema import migrate
from pipelines.stack.launch import free_ports
from tests.integration.test_analytics_queries import (  # noqa: F401
    fill,
    test_accounts_and_freshness,
    test_an_order_is_credited_to_the_last_feed_in_which_the_item_was_clicked,
    test_features_of_shown_items_keep_what_was_missing,
    test_hours_are_computed_once_however_often,
    test_latency_shadow_drift_and_rollouts,
    test_predictions_carry_their_late_labels,
)

IMAGE = "clickhouse/clickhouse-server:24.8"


@pytest.fixture(scope="module")
def store() -> Iterator[Analytics]:
    """A ClickHouse in a container of its own, filled with the small world."""
    (port,) = free_ports(1)
    logins = ("-e", "CLICKHOUSE_USER=minimart", "-e", "CLICKHOUSE_PASSWORD=secret")
    name = f"minimart-test-clickhouse-{port}"
    run = ["docker", "run", "--rm", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:8123", *logins, IMAGE]
    subprocess.run(run, check=True, capture_output=True)
    try:
        store = Analytics(f"http://127.0.0.1:{port}", user="minimart", password="secret", database="queries")
        deadline = time.monotonic() + 60
        while not store.ping():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        migrate(store)
        fill(store)
        yield store
        store.close()
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)
