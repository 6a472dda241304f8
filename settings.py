"""Typed settings: the only place that reads the environment. `.env.example` mirrors this file.

Every key is read from `MINIMART_<NAME>`, a line of `.env`, or a file /run/secrets/minimart_<name>. A missing, unknown or wrong value stops the
process in under two seconds with the key, the value, what is allowed and the fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

ROOT = Path(__file__).resolve().parent
SECRETS = Path("/run/secrets")  # where Docker and Kubernetes put them: one file per key, e.g. minimart_redis_password
DEFAULT_PASSWORDS = ("", "password", "password1234", "admin", "changeme", "minimart")


class _OwnLines(DotEnvSettingsSource):
    """The lines of .env that are ours; docker compose and others may have theirs in the same file."""

    def _read_env_files(self) -> Mapping[str, str | None]:
        return {name: value for name, value in super()._read_env_files().items() if name.lower().startswith("minimart_")}


class Settings(BaseSettings):
    """All knobs of one Minimart platform. Ports are moved together by `port_offset`, data lies under `home`."""

    model_config = SettingsConfigDict(env_prefix="MINIMART_", env_file=ROOT / ".env", env_ignore_empty=True, extra="forbid", frozen=True,
                                      secrets_dir=SECRETS if SECRETS.is_dir() else None)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code wins, then the environment, .env and the secret files."""
        return init_settings, env_settings, _OwnLines(settings_cls), file_secret_settings

    # Where and how
    home: Path = Field(ROOT / ".minimart", description="folder of everything the platform writes")
    output: Path | None = Field(None, description="folder for what people read: load samples, pictures, reports; empty: home")
    memory_needed_gib: float = Field(4, ge=0, le=4096, description="least memory of the machine, in GiB; 0: do not ask")
    disk_needed_gib: float = Field(2, ge=0, le=65536, description="least free disk space for `home`, in GiB; 0: do not ask")
    environment: Literal["development", "production"] = Field("development", description="default secrets are refused in production")
    host: str = Field("127.0.0.1", description="address that our services listen on; loopback unless you ask")
    port_offset: int = Field(0, ge=0, le=30000, description="added to every port, so that two platforms can run side by side")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    seed: int = Field(7, ge=0, description="seed of everything random: same seed, same history")
    threads: int = Field(2, ge=1, le=64, description="threads a training or search library may use")

    # Data
    data: Path | None = Field(None, description="folder with your own items and events; empty: the simulator's marketplace")
    mapping: Path | None = Field(None, description="mapping.toml for `data` with names of its own; empty: the folder's, if any")
    sim_shoppers: int = Field(8000, ge=50, le=1_000_000, description="simulated shoppers")
    sim_items: int = Field(4000, ge=100, le=1_000_000, description="simulated catalogue size")
    sim_days: int = Field(30, ge=7, le=365, description="days of simulated history")
    sim_live_rate: float = Field(1.0, ge=0, le=1000, description="live simulated feed requests per second")
    sim_scenario: str = Field("", description="what is wrong with the live marketplace, e.g. taste_shift=0.5,traffic_mix=0.2")

    # Neighbours: empty means the native part that `make demo` starts on this machine
    kafka_bootstrap: str = Field("", description="host:port[,host:port] of Kafka")
    kafka_partitions: int = Field(4, ge=1, le=512, description="partitions of every topic (co-partitioned, so one number)")
    redis_url: str = Field("", description="redis://host:port/db of the online store")
    redis_password: str = Field("", repr=False, description="password of the online store")
    mlflow_uri: str = Field("", description="http(s) address of the MLflow server")
    mlflow_user: str = Field("", description="user of the MLflow server, where it asks for one")
    mlflow_password: str = Field("", repr=False, description="password of that user")
    triton_grpc: str = Field("", description="host:port of Triton's gRPC endpoint")
    triton_http: str = Field("", description="host:port of Triton's HTTP endpoint")
    triton_gpu_config: str = Field(
        "config", pattern=r"^[a-z0-9_]+$",
        description="profile gpu: the file under deploy/triton/<model>/configs that NVIDIA's image loads, e.g. tensorrt_fp16",
    )  # fmt: skip
    clickhouse_url: str = Field("", description="http(s) address of ClickHouse's HTTP interface")
    clickhouse_user: str = Field("default", description="user of ClickHouse")
    clickhouse_password: str = Field("", repr=False, description="password of that user")

    # Our own services: empty means the one on this machine, else http(s)://host:port
    collector_url: str = Field("", description="where the collector is, for those who send it events")
    recommender_url: str = Field("", description="where the recommender, or the balancer before it, is")
    stream_features_url: str = Field("", description="where the stream worker's probes are")
    event_log_url: str = Field("", description="where the event log's probes are")
    shop_url: str = Field("", description="where the shop is")
    simulator_url: str = Field("", description="where the simulator is")
    analytics_url: str = Field("", description="where the analytics consumer's probes are")
    controller_url: str = Field("", description="where the controller of rollouts is")
    console_hosts: str = Field("", description="further names under which the console may be opened, comma separated")
    console_url: str = Field("", description="where the console is")
    monitor_url: str = Field("", description="where the monitor is")
    feature_server_url: str = Field("", description="where the feature server is")
    prometheus_url: str = Field("", description="where Prometheus is")
    alertmanager_url: str = Field("", description="where Alertmanager is")

    # Stream worker
    stream_worker: str = Field("0", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="name of this stream worker; one per process")
    crash_point: str = Field("", description="fault tests: where the stream worker ends like kill -9, as point or point:nth")

    # Ports of the native stack before `port_offset`
    shop_port: int = Field(8080, ge=1, le=65535)
    collector_port: int = Field(8081, ge=1, le=65535)
    recommender_port: int = Field(8082, ge=1, le=65535)
    stream_features_port: int = Field(8083, ge=1, le=65535, description="/livez /readyz /metrics of the stream worker")
    event_log_port: int = Field(8084, ge=1, le=65535, description="/livez /readyz /metrics of the event log")
    simulator_port: int = Field(8085, ge=1, le=65535, description="/livez /readyz /metrics of the live simulator")
    mlflow_port: int = Field(8086, ge=1, le=65535)
    triton_http_port: int = Field(8087, ge=1, le=65535)
    triton_grpc_port: int = Field(8088, ge=1, le=65535)
    triton_metrics_port: int = Field(8089, ge=1, le=65535)
    kafka_port: int = Field(8091, ge=1, le=65535)
    kafka_controller_port: int = Field(8092, ge=1, le=65535)
    redis_port: int = Field(8093, ge=1, le=65535)
    prometheus_port: int = Field(8094, ge=1, le=65535)
    alertmanager_port: int = Field(8095, ge=1, le=65535)
    clickhouse_port: int = Field(8096, ge=1, le=65535, description="ClickHouse's HTTP interface")
    analytics_port: int = Field(8097, ge=1, le=65535, description="/livez /readyz /metrics of the analytics consumer")
    controller_port: int = Field(8098, ge=1, le=65535)
    console_port: int = Field(8099, ge=1, le=65535)
    monitor_port: int = Field(8100, ge=1, le=65535, description="takes alerts from Alertmanager and writes incidents")
    feature_server_port: int = Field(8102, ge=1, le=65535)
    feature_server_grpc_port: int = Field(8103, ge=1, le=65535, description="gRPC of the feature server")
    grafana_port: int = Field(8101, ge=1, le=65535, description="port of Grafana (docker compose only)")

    # Recommender: milliseconds a stage may take before it is skipped and named in `degraded`
    budget_retrieve_ms: float = Field(60, gt=0, le=10_000)
    budget_features_ms: float = Field(40, gt=0, le=10_000)
    budget_prerank_ms: float = Field(60, gt=0, le=10_000)
    budget_rank_ms: float = Field(80, gt=0, le=10_000)
    budget_rerank_ms: float = Field(40, gt=0, le=10_000)
    recommender_in_flight: int = Field(16, ge=1, le=10_000, description="requests answered at once; more are shed with 429")
    recommender_at_once: int = Field(4, ge=1, le=1000, description="requests in a process's funnel at once; the others wait for their turn")
    recommender_queue_ms: float = Field(20, gt=0, le=10_000, description="wait before the funnel from which on a standing queue is shed, in ms")
    recommender_models: Literal["triton", "in_process"] = Field("triton", description="where models run first; in process suits a few cores without Triton")
    recommender_cache_ms: float = Field(2000, ge=0, le=60_000, description="how long a stranger's answer is kept for the next stranger, in ms; 0: not")
    recommender_coalesce: bool = Field(True, description="identical requests at the same time wait for one decision")
    recommender_workers: int = Field(1, ge=1, le=64, description="processes that answer behind the one port")
    recommender_pin: bool = Field(False, description="each worker keeps to a core of its own; for machines that serve little else")

    # Feature server
    feature_server_cache_mib: int = Field(64, ge=1, le=65536, description="last known rows kept for when Redis is away")

    # Rollout: how a challenger comes into use, and when the controller lets one be trained
    rollout_step_s: float = Field(60, gt=0, le=86_400, description="seconds that a canary step lasts at least")
    rollout_shadow_s: float = Field(30, gt=0, le=86_400, description="seconds of shadow traffic at least")
    rollout_least_requests: int = Field(200, ge=1, description="canary answers that a step needs before the next")
    rollout_least_shadow: int = Field(50, ge=1, description="shadow scores that the first canary step needs")
    rollout_timeout_s: float = Field(1800, gt=0, le=604_800, description="seconds after which a step without enough answers is rolled back")
    rollout_cooldown_s: float = Field(1800, ge=0, le=604_800, description="seconds after a rollout without automatic retraining")
    rollout_max_retrains_per_day: int = Field(4, ge=0, le=1000, description="automatic retrains within 24 hours")
    rollout_alpha: float = Field(0.05, gt=0, lt=1, description="share of harmless challengers that may be rolled back by chance")
    rollout_gate_bypass: bool = Field(False, description="drills only: lets a challenger around the gate; refused in production")
    drift_every_s: float = Field(60, gt=0, le=86_400, description="seconds between drift checks")
    contracts_every_s: float = Field(3600, gt=0, le=604_800, description="seconds between checks of the data contracts in batch")
    drift_window: str = Field("1h", pattern=r"^[0-9]+[smhd]$", description="window of the scheduled drift checks")
    drift_settle_s: float = Field(30, ge=0, le=604_800, description="seconds after which a feed's clicks count as all in")
    drift_confirmations: int = Field(2, ge=1, le=100, description="drift reports in a row before a retrain")

    def port(self, part: str) -> int:
        """The port of a part with the offset added, e.g. `port("recommender")` or `port("triton_grpc")`."""
        return int(getattr(self, f"{part}_port")) + self.port_offset

    def url(self, part: str) -> str:
        """`http://host:port` of one HTTP part: where its setting `<part>_url` says, else on this machine."""
        elsewhere = str(getattr(self, f"{part}_url", "")).rstrip("/")
        return elsewhere or f"http://{self.host}:{self.port(part)}"

    @model_validator(mode="after")
    def _no_default_credentials(self) -> Settings:
        """In production every neighbour that takes a password has one, and none that stands in a manual."""
        if self.environment == "development":
            return self
        weak = [
            f"MINIMART_{name.upper()}_PASSWORD"
            for name, address in (("redis", self.redis), ("mlflow", self.mlflow), ("clickhouse", self.url("clickhouse")))
            if (getattr(self, f"{name}_password") or urlsplit(address).password or "") in DEFAULT_PASSWORDS
        ]
        if weak:
            raise ValueError(f"{', '.join(weak)}: empty or a default; production needs passwords of your own")
        return self

    def given(self) -> dict[str, str]:
        """What is not left at its default, as environment variables for a child that is to have the same settings.

        Without passwords: the child reads them where we did.
        """
        fields = type(self).model_fields
        values = {name: getattr(self, name) for name in sorted(self.model_fields_set) if fields[name].repr}
        return {f"MINIMART_{name.upper()}": str(value) for name, value in values.items() if value is not None}

    @cached_property
    def kafka(self) -> str:
        return self.kafka_bootstrap or f"{self.host}:{self.port('kafka')}"

    @cached_property
    def redis(self) -> str:
        """With the password, if there is one: not for logs."""
        return with_credentials(self.redis_url or f"redis://{self.host}:{self.port('redis')}/0", "", self.redis_password)

    @cached_property
    def mlflow(self) -> str:
        """With user and password, if there are any: not for logs."""
        return with_credentials(self.mlflow_uri or self.url("mlflow"), self.mlflow_user, self.mlflow_password)

    @cached_property
    def triton(self) -> str:
        return self.triton_grpc or f"{self.host}:{self.port('triton_grpc')}"

    @property
    def out(self) -> Path:
        """Where programs put what people read: samples, pictures, reports."""
        return self.output or self.home

    # The folders under `home`, each written by the one part named beside it
    @property
    def lake(self) -> Path:
        """Parquet event log: services/event_log, pipelines/seed_history, pipelines/import_data."""
        return self.home / "lake"

    @property
    def published(self) -> Path:
        """Verified model bundles that serving reads: pipelines/publish."""
        return self.home / "published"

    @property
    def triton_models(self) -> Path:
        """Triton's model repository: pipelines/publish."""
        return self.home / "triton"

    @property
    def features(self) -> Path:
        """Feast's registry and the compiled feature plan: pipelines/apply_features."""
        return self.home / "features"

    @property
    def truth(self) -> Path:
        """The simulator's planted truth; only the simulator, tests and pipelines/evaluate may read it."""
        return self.home / "truth"

    @property
    def incidents(self) -> Path:
        """Incident files: services/monitor and the drills, through adapters/incidents.py."""
        return self.home / "incidents"

    @property
    def metrics(self) -> Path:
        """Prometheus text files of programs that end, shown by services/monitor."""
        return self.home / "metrics"

    @property
    def rollout(self) -> Path:
        """Audit log and a copy of the rollout's state: services/controller."""
        return self.home / "rollout"

    @property
    def gate_bypass_allowed(self) -> bool:
        """Whether a challenger may go around the gate here."""
        return self.rollout_gate_bypass and self.environment != "production"

    @property
    def work(self) -> Path:
        """Scratch and checkpoints of the pipelines."""
        return self.home / "work"


def without_password(address: str) -> str:
    """`address` as it may stand in a log."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def with_credentials(address: str, user: str, password: str) -> str:
    """`address` with user and password in it, unless it has its own or there are none."""
    parts = urlsplit(address)
    if not password or parts.password:
        return address
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}"))


def load_settings() -> Settings:
    """Read and check the settings; exit with one clear line per wrong key."""
    try:
        return Settings()
    except ValidationError as error:
        raise SystemExit("\n".join(map(_complaint, error.errors()))) from None


def _complaint(error: Any) -> str:
    """One wrong key in one line; never a password, and never all the values at once."""
    if not error["loc"]:
        return f"settings: {error['msg'].removeprefix('Value error, ')}; set it in .env or in the environment"
    name = ".".join(map(str, error["loc"])).upper()
    value = "..." if "PASSWORD" in name else repr(error.get("input"))
    return (
        f"settings: MINIMART_{name} = {value}: {error['msg']}; "
        "see .env.example for what is allowed, and change it there or in the environment"
    )
