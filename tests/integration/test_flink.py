"""The compiled SQL on a real Flink beside a real Kafka and Redis: killed on its way, and every window equals brute force."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.errors import BadInput, Unavailable
from adapters.flink import SqlGateway
from adapters.kafka import ensure_topics
from feature_repo import tiles
from feature_repo.flink_sql import topic_of
from pipelines.flink import gateway
from pipelines.flink.parity_engine import FlinkEngine
from pipelines.flink.serve import TileSink
from pipelines.stack.launch import free_ports, running
from tests import brute_force
from tests.integration.feature_stack import HOUR, Stack, as_oracle, feature_stack, hard_stream, produce

EVENTS = 6_000
NOW = 1_790_003_600_000


@pytest.fixture(scope="module")
def jars() -> None:
    try:
        gateway.install()
    except Unavailable as reason:
        pytest.skip(reason.detail)


@pytest.fixture(scope="module")
def stack(jars: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with feature_stack(tmp_path_factory.mktemp("flink")) as found:
        yield found
