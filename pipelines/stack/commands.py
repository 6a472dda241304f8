"""How each part is started on this machine: part -> Launch."""

from __future__ import annotations

from pipelines.stack import (
    clickhouse_server,
    kafka_broker,
    mlflow_server,
    prometheus_server,
    redis_server,
    triton_server,
)
from pipelines.stack.launch import CannotRun, Launch, python_of
from pipelines.stack.parts import Part, targets
from settings import Settings


def launch(part: Part, settings: Settings) -> Launch:
    """Write the part's files under home and give its command. Raises CannotRun for an optional one that cannot run."""
    folder, host = settings.home / part.name, settings.host
    match part.name:
        case "kafka":
            return kafka_broker.launch(
                folder, host=host, port=settings.port("kafka"), controller_port=settings.port("kafka_controller"),
                partitions=settings.kafka_partitions,
            )  # fmt: skip
        case "redis":
            return redis_server.launch(folder, host=host, port=settings.port("redis"))
        case "mlflow":
            return mlflow_server.launch(folder, host=host, port=settings.port("mlflow"))
        case "clickhouse":
            return clickhouse_server.launch(
                folder, host=host, port=settings.port("clickhouse"), user=settings.clickhouse_user,
                password=settings.clickhouse_password, threads=settings.threads,
            )  # fmt: skip
        case "analytics" if not (settings.clickhouse_url or clickhouse_server.installed()):
            raise CannotRun("there is no analytical store here for it to write to")
        case "triton":
            return triton_server.launch(
                settings.home / "run" / "triton", models=settings.triton_models, host=host,
                http_port=settings.port("triton_http"), grpc_port=settings.port("triton_grpc"),
                metrics_port=settings.port("triton_metrics"),
            )  # fmt: skip
        case "prometheus":
            return prometheus_server.launch(
                folder, host=host, port=settings.port("prometheus"),
                alertmanager=f"{host}:{settings.port('alertmanager')}",
                targets=[(one.name, target, one.metrics or "/metrics") for one, target in targets(settings)],
            )  # fmt: skip
        case "alertmanager":
            return prometheus_server.launch_alertmanager(
                folder, host=host, port=settings.port("alertmanager"), monitor=settings.url("monitor")
            )
        case name:
            return Launch((python_of(part.environment), "-m", f"services.{name}"))
