"""Real servers on free ports, one of each per test session, started by the code that starts the native stack.

A test that kills or stops a server starts its own with the functions here, so that the shared ones stay up.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.stack import clickhouse_server, kafka_broker, mlflow_server, redis_server, triton_server
from pipelines.stack.launch import CannotRun, free_ports, running

HOST = "127.0.0.1"


@contextmanager
def kafka_server(folder: Path) -> Iterator[str]:
    """A broker of its own; gives `host:port`."""
    port, controller = free_ports(2)
    launch = kafka_broker.launch(folder, host=HOST, port=port, controller_port=controller, heap_mb=256)
    with running(launch, log=folder / "kafka.log", ready=lambda: kafka_broker.ready(HOST, port)):
        yield f"{HOST}:{port}"


@contextmanager
def redis_process(folder: Path) -> Iterator[str]:
    """A Redis of its own; gives its URL."""
    (port,) = free_ports(1)
    launch = redis_server.launch(folder, host=HOST, port=port)
    with running(launch, log=folder / "redis.log", ready=lambda: redis_server.ready(HOST, port)):
        yield f"redis://{HOST}:{port}/0"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of an empty broker without automatic topic creation."""
    with kafka_server(tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis that tests share: use keys of your own, or flush it first."""
    with redis_process(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server with an empty store."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    launch = mlflow_server.launch(folder, host=HOST, port=port)
    with running(launch, log=folder / "mlflow.log", ready=lambda: mlflow_server.ready(HOST, port)):
        yield f"http://{HOST}:{port}"


@contextmanager
def clickhouse_running(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A ClickHouse of its own; gives the process, to be killed. Raises CannotRun where there is no engine."""
    launch = clickhouse_server.launch(folder / "clickhouse", host=HOST, port=port, threads=1)
    with running(launch, log=folder / "clickhouse.log", ready=lambda: clickhouse_server.ready(HOST, port)) as process:
        yield process


@contextmanager
def clickhouse_process(folder: Path) -> Iterator[str]:
    """A ClickHouse of its own; gives its URL. Raises CannotRun where there is no engine."""
    (port,) = free_ports(1)
    with clickhouse_running(folder, port):
        yield f"http://{HOST}:{port}"


@pytest.fixture(scope="session")
def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a ClickHouse that tests share: use databases of your own."""
    try:
        with clickhouse_process(tmp_path_factory.mktemp("clickhouse")) as url:
            yield url
    except CannotRun as reason:
        pytest.skip(reason.detail)


@dataclass(frozen=True)
class Triton:
    """A running server: `models` is its (empty) repository, loads are explicit."""

    grpc: str
    http: str
    models: Path


@contextmanager
def triton_process(folder: Path) -> Iterator[Triton]:
    """A Triton of its own. Raises CannotRun where the wheel does not work."""
    http, grpc, metrics = free_ports(3)
    models = folder / "models"
    launch = triton_server.launch(
        folder, models=models, host=HOST, http_port=http, grpc_port=grpc, metrics_port=metrics
    )
    with running(launch, log=folder / "triton.log", ready=lambda: triton_server.ready(HOST, http)):
        yield Triton(f"{HOST}:{grpc}", f"http://{HOST}:{http}", models)


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A Triton that tests share: give models names of your own."""
    try:
        with triton_process(tmp_path_factory.mktemp("triton")) as server:
            yield server
    except CannotRun as reason:
        pytest.skip(reason.detail)
