"""What docker-compose.yml does not say about a container: who may talk to whom, its user, its processor, its copies.

Names here are those of docker-compose.yml; Kubernetes allows no underscore in them, so there `_` becomes `-`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["service", "store", "job", "init"]


@dataclass(frozen=True)
class Row:
    """One container of docker-compose.yml.

    `ports`: the first is asked for its health. `talks_to`: the only connections that the network lets it make.
    `cpu`: requested, in millicores. `user`: the image's own. `copies`: how many at least; beyond one it gets a budget
    for disruptions. `part_of`: the one whose init container it is.
    """

    kind: Kind
    ports: tuple[int, ...] = ()
    talks_to: tuple[str, ...] = ()
    cpu: int = 50
    user: int = 10001
    copies: int = 1
    read_only: bool = True  # its root file system
    part_of: str = ""
    outside: tuple[int, ...] = ()  # ports of the world that it may reach


# What compose has and Kubernetes does itself, or another way.
NOT_HERE: Final = {
    "secrets": "the Secrets minimart-secrets and minimart-vault, made by whoever deploys",
    "balancer": "the Service `balancer` in front of the recommender's pods",
    "triton-gpu": "a node selector and NVIDIA's image in an overlay of your own",
    "tools": "kubectl run, with the pipelines' image",
}
# Your own data to import: a claim of yours, mounted in an overlay.
NOT_MOUNTED: Final = ("/import",)
# The Secret behind each volume of secrets.
SECRETS: Final = {"secrets": "minimart-secrets", "vault": "minimart-vault"}

EVERYWHERE: Final = ("kafka", "redis")
ROWS: Final[dict[str, Row]] = {
    "kafka": Row("store", (9092,), cpu=250, user=1000, read_only=False),
    "redis": Row("store", (6379,), cpu=100, user=999),
    "postgres": Row("store", (5432,), cpu=50, user=70, read_only=False),
    "object-store": Row("store", (7070,), cpu=50),
    "clickhouse": Row("store", (8123,), cpu=250, user=101, read_only=False),
    "triton": Row("service", (8000, 8001, 8002), cpu=250),
    "mlflow": Row("service", (8086,), ("postgres", "object-store"), cpu=100),
    "mlflow-database": Row("init", (), ("postgres",), part_of="mlflow"),
    "bucket": Row("init", (), ("object-store",), part_of="mlflow"),
    "topics": Row("init", (), ("kafka",), part_of="train"),
    "seed": Row("init", (), EVERYWHERE, part_of="train"),
    "train": Row("job", (), (*EVERYWHERE, "mlflow", "triton", "clickhouse"), cpu=1000),
    "welcome": Row("job", (), ("recommender",)),
    "collector": Row("service", (8081,), ("kafka",), cpu=100),
    "event_log": Row("service", (8084,), ("kafka",), cpu=100),
    "stream_features": Row("service", (8083,), EVERYWHERE, cpu=200),
    "feature_server": Row("service", (8102, 8103), ("redis",), cpu=200, copies=2),
    "recommender": Row("service", (8082,), (*EVERYWHERE, "triton", "clickhouse"), cpu=500, copies=2),
    "shop": Row("service", (8080,), (*EVERYWHERE, "collector", "recommender"), cpu=100),
    "simulator": Row("service", (8085,), ("collector", "recommender"), cpu=100),
    "analytics": Row("service", (8097,), ("kafka", "clickhouse"), cpu=100),
    "controller": Row(
        "service", (8098,),
        (*EVERYWHERE, "clickhouse", "mlflow", "triton", "recommender", "simulator", "prometheus"), cpu=200,
    ),
    "console": Row(
        "service", (8099,),
        (*EVERYWHERE, "clickhouse", "controller", "monitor", "prometheus", "recommender", "collector", "simulator",
         "mlflow", "alertmanager", "analytics", "event_log", "stream_features", "shop", "triton"),
    ),
    "monitor": Row("service", (8100,), ("prometheus",)),
    "prometheus": Row("store", (9090,), ("*metrics", "alertmanager"), cpu=100, user=65534),
    "alertmanager": Row("store", (9093,), ("monitor",), user=65534),
    # It downloads ClickHouse's plugin when it starts; an image of yours that has it needs no way out.
    "grafana": Row("store", (3000,), ("prometheus", "clickhouse", "alertmanager"), user=472, outside=(443,)),
}  # fmt: skip

# Gigabytes of each volume.
SIZES: Final = {
    "kafka": 10, "redis": 2, "postgres": 2, "objects": 10, "clickhouse": 20, "prometheus": 5, "alertmanager": 1,
    "grafana": 1, "home": 5, "lake": 20, "features": 1, "truth": 1, "published": 5, "triton-models": 5, "simulator": 1,
}  # fmt: skip

# The files whose presence says that a job of compose has ended: volume -> file.
DONE: Final = {"seed": (("features", "/data/features/plan.json"), ("lake", "/data/lake/_meta.json")),
               "train": (("published", "/data/published/CURRENT.json"),)}  # fmt: skip
