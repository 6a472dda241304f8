"""Register the feature declarations with Feast and compile them to the plan that the services read.

Writes under settings.features: feature_store.yaml (so that the Feast SDK and CLI work there), registry.db, plan.json
and feature_services.json (every version of a feature service that can still be answered). Idempotent; needs neither
Kafka nor Redis.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from feast import FeatureStore

from feature_repo import features
from feature_repo.plan import FeaturePlan
from feature_repo.service_versions import FILE, FeatureServices, compile_services
from settings import Settings, load_settings

STORE = """\
project: {project}
provider: local
registry: {{registry_type: sql, path: "sqlite:///{folder}/registry.db", cache_ttl_seconds: 5}}
online_store: {{type: redis, connection_string: "{redis}"}}
offline_store: {{type: duckdb}}
entity_key_serialization_version: 3
"""


def write_atomically(path: Path, payload: bytes) -> None:
    """Write, sync, rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def compile_plan(folder: Path) -> FeaturePlan:
    """Write plan.json of the declarations, and the versions of its services; returns the plan."""
    write_atomically(folder / "plan.json", features.PLAN.dump())
    try:
        before = FeatureServices.load(folder / FILE)
    except FileNotFoundError:
        before = None
    write_atomically(folder / FILE, compile_services(features.PLAN, before).dump())
    return features.PLAN


def store(settings: Settings) -> FeatureStore:
    """The Feast store of this platform, over its registry, the Parquet history and Redis."""
    address = urlsplit(settings.redis)
    redis = f"{address.hostname}:{address.port or 6379},db={address.path.strip('/') or 0}"
    redis += f",password={address.password}" if address.password else ""
    text = STORE.format(project=features.PROJECT, folder=settings.features.resolve(), redis=redis)
    write_atomically(settings.features / "feature_store.yaml", text.encode())
    return FeatureStore(repo_path=str(settings.features))


def apply(settings: Settings) -> FeaturePlan:
    """Register everything and compile the plan."""
    plan = compile_plan(settings.features)
    for view in features.VIEWS:
        file = view.batch_source.file_options
        file.uri = str(settings.features.resolve() / "history" / Path(file.uri).name)  # Feast takes the working folder
    store(settings).apply(list(features.OBJECTS))
    return plan


def main() -> None:
    settings = load_settings()
    plan = apply(settings)
    count = sum(len(v.features) for v in plan.declared_views)
    print(f"feature set {plan.version}: {count} features in {len(plan.declared_views)} views -> {settings.features}")


if __name__ == "__main__":
    main()
