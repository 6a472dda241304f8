"""Which feature services there are, by version, and which published models are pinned to each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from pydantic import BaseModel

from adapters.bundles import MANIFEST, Manifest
from adapters.errors import Corrupt
from adapters.pointers import in_use
from feature_repo.service_versions import FeatureServices
from services.feature_server.asks import Asks

PIN: Final = "feature_service"  # what a bundle's manifest calls it


class Listed(BaseModel):
    name: str
    version: str
    newest: bool
    features: list[str]
    join_keys: list[str]
    models: list[str]


def pins(published: Path) -> dict[str, list[str]]:
    """name@version of a feature service -> name@version of the models in use that were trained on it."""
    found: dict[str, list[str]] = {}
    try:
        used = in_use(published)
    except Corrupt:
        return {}  # the recommender says so; here it only means that nothing is known of models
    for name, versions in used.items():
        for version in sorted(versions):
            try:
                raw = (published / name / version / MANIFEST).read_bytes()
                ref = msgspec.json.decode(raw, type=Manifest).meta.get(PIN)
            except (OSError, msgspec.DecodeError):
                continue  # whoever serves it checks it
            if isinstance(ref, str):
                found.setdefault(ref, []).append(f"{name}@{version}")
    return found


def listing(services: FeatureServices, asks: Asks, pinned: dict[str, list[str]]) -> list[Listed]:
    """Every version that can be answered."""
    return [
        Listed(
            name=v.name, version=v.version, newest=services.newest[v.name] is v,
            features=[f"{p.view}:{name}" for p in v.projections for name in p.features],
            join_keys=list(asks.join_keys(v.projections)), models=pinned.get(v.ref, []),
        )
        for v in services.versions
    ]  # fmt: skip


def unanswerable(services: FeatureServices, pinned: dict[str, list[str]]) -> list[str]:
    """Models in use whose feature service is no longer declared as it was."""
    known = {v.ref for v in services.versions}
    return [f"{model} was trained on {ref}" for ref, models in pinned.items() if ref not in known for model in models]
