"""The one list of parts. The process manager's configuration, `make status`, `make urls`, Prometheus' targets, the port
check and the picture in the README are all made from it.

It is data only: how a part is started stands in `commands.py`, whether it is well in `probes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:  # the composed stack's verbs read this list with a plain Python that has no pydantic
    from settings import Settings

Kind = Literal["infrastructure", "service", "watch"]
Probe = Literal["tcp", "redis", "http"]


@dataclass(frozen=True)
class Part:
    """One process. `ports` are settings' names without `_port`; on the first one the part is asked for its health."""

    name: str
    kind: Kind
    what: str
    ports: tuple[str, ...]
    environment: Literal["platform", "training", "triton", "clickhouse", "system"]
    probe: Probe = "http"
    probe_path: str = "/readyz"
    page: str | None = None  # path of a page for people
    metrics: str | None = None  # path that Prometheus reads, on `metrics_port`
    metrics_port: str = ""
    try_there: str = ""
    talks_to: tuple[str, ...] = ()
    optional: bool = False  # the platform goes on without it where the machine cannot run it
    elsewhere: str = ""  # the setting that names one that runs elsewhere; then none is started here

    def port(self, settings: Settings) -> int:
        """The port of its health check."""
        return settings.port(self.ports[0])

    def address(self, settings: Settings) -> str:
        """Where it is, for people: a page, else host:port."""
        base = f"{settings.host}:{self.port(settings)}"
        return f"http://{base}{self.page}" if self.page is not None else base

    def target(self, settings: Settings) -> str | None:
        """`host:port` that Prometheus reads, if any."""
        if self.metrics is None:
            return None
        return f"{settings.host}:{settings.port(self.metrics_port or self.ports[0])}"


def _service(name: str, what: str, try_there: str, talks_to: tuple[str, ...], *, page: str | None = None) -> Part:
    return Part(
        name, "service", what, (name,), "platform",
        page=page, metrics="/metrics", try_there=try_there, talks_to=talks_to,
    )  # fmt: skip


PARTS: Final[tuple[Part, ...]] = (
    Part(
        "kafka", "infrastructure", "the log of every event and decision", ("kafka", "kafka_controller"), "platform",
        probe="tcp", try_there="make walk", talks_to=("stream_features", "event_log", "analytics"),
        elsewhere="kafka_bootstrap",
    ),
    Part(
        "redis", "infrastructure", "online feature store", ("redis",), "platform",
        probe="redis", try_there="redis-cli -p {port} dbsize", talks_to=("recommender", "feature_server"),
        elsewhere="redis_url",
    ),
    Part(
        "triton", "infrastructure", "model server (ONNX, dynamic batching)",
        ("triton_http", "triton_grpc", "triton_metrics"), "triton", probe_path="/v2/health/live",
        page="/v2/models/ranker", metrics="/metrics", metrics_port="triton_metrics",
        try_there="the ranker's inputs and outputs", talks_to=(), optional=True, elsewhere="triton_grpc",
    ),
    Part(
        "mlflow", "infrastructure", "training runs and model registry", ("mlflow",), "training",
        probe_path="/health", page="/", try_there="runs, curves, the alias champion", talks_to=("triton",),
        elsewhere="mlflow_uri",
    ),
    Part(
        "clickhouse", "infrastructure", "analytical store of decisions and outcomes", ("clickhouse",), "clickhouse",
        probe_path="/ping", try_there="curl localhost:{port}/?query=SHOW+TABLES+FROM+minimart", optional=True,
        elsewhere="clickhouse_url",
    ),
    _service("collector", "takes events in", "POST /v1/events", ("kafka",), page="/docs"),
    _service("event_log", "Kafka to Parquet, the offline store", "make logs S=event_log", ("lake",)),
    Part(
        "analytics", "service", "Kafka to the analytical store, hourly statistics", ("analytics",), "platform",
        metrics="/metrics", try_there="make logs S=analytics", talks_to=("clickhouse",), optional=True,
    ),
    _service("stream_features", "sliding windows, exactly once", "make logs S=stream_features", ("redis",)),
    Part(
        "feature_server", "service", "features by key, gRPC and HTTP", ("feature_server", "feature_server_grpc"),
        "platform", page="/docs", metrics="/metrics", try_there="POST /v1/features",
    ),
    _service("recommender", "the ranking funnel", "POST /v1/recommendations", ("triton", "kafka"), page="/docs"),
    _service("controller", "drift to promotion, or back", "GET /v1/rollout", ("recommender", "mlflow"), page="/docs"),
    _service("shop", "the shop's pages", "click a few products", ("collector", "recommender"), page="/"),
    _service("console", "the operator's page", "watch, hold, roll back, make it drift", ("controller",), page="/"),
    _service("simulator", "live shoppers", "make logs S=simulator", ("collector", "recommender")),
    _service("monitor", "alerts become incidents", "GET /v1/incidents", (), page="/docs"),
    Part(
        "prometheus", "watch", "metrics and alert rules", ("prometheus",), "system",
        probe_path="/-/ready", page="/alerts", metrics="/metrics", try_there="which alerts fire",
        talks_to=("alertmanager",), optional=True,
    ),
    Part(
        "alertmanager", "watch", "groups and keeps alerts", ("alertmanager",), "system",
        probe_path="/-/ready", page="/", metrics="/metrics", try_there="silence one", talks_to=("monitor",),
        optional=True,
    ),
)  # fmt: skip

BY_NAME: Final = {part.name: part for part in PARTS}


def native(settings: Settings) -> tuple[Part, ...]:
    """The parts that this machine runs: those that no setting says are elsewhere."""
    return tuple(part for part in PARTS if not (part.elsewhere and getattr(settings, part.elsewhere)))


def targets(settings: Settings) -> list[tuple[Part, str]]:
    """What Prometheus reads: (part, host:port)."""
    return [(part, target) for part in native(settings) if (target := part.target(settings))]


def mermaid() -> str:
    """The architecture as a Mermaid flow chart; an arrow is where data flows."""
    shapes = {"infrastructure": "[({})]", "service": "[{}]", "watch": "{{{{{}}}}}"}
    lines = ["flowchart LR"]
    for part in PARTS:
        label = f'"<b>{part.name}</b><br/>{part.what}"'
        lines.append(f"    {part.name}{shapes[part.kind].format(label)}")
    lines.append('    lake[("<b>lake</b><br/>Parquet event log")]')
    lines.append('    pipelines["<b>pipelines</b><br/>train, gate, publish"]')
    lines += [f"    {part.name} --> {other}" for part in PARTS for other in part.talks_to]
    lines += ["    lake --> pipelines", "    pipelines --> mlflow"]
    lines += [f"    {part.name} -.-> prometheus" for part in PARTS if part.metrics and part.kind == "service"]
    return "\n".join(lines) + "\n"
