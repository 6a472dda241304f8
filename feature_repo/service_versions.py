"""Feature services by version: what `name@version` promises to those who were trained on it. Pure: needs no Feast.

A version is a digest of what its features mean (their declarations, with their inputs), so it changes when the meaning
does and not when others are declared beside it. Older versions are kept for as long as every feature of theirs is still
declared as it was then: whoever is pinned to one goes on being served.

    pipelines/apply_features writes them as JSON; the feature server answers them; model bundles name theirs
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from feature_repo.plan import FeaturePlan

FILE: Final = "feature_services.json"
KEPT: Final = 8  # versions of one service


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """Some features of a view, in the order in which they are answered."""

    view: str
    features: tuple[str, ...]


class ServiceVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A feature service as it was when this version of it was declared."""

    name: str
    version: str
    projections: tuple[Projection, ...]

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"


class FeatureServices(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Every service version that the feature set `feature_set` (a plan's SHA-256) can answer, newest first per name."""

    feature_set: str
    versions: tuple[ServiceVersion, ...]

    @classmethod
    def load(cls, path: Path) -> FeatureServices:
        """Raises FileNotFoundError, or ValueError when it is not such a file."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except msgspec.DecodeError as error:
            raise ValueError(f"no feature services: {error}") from None

    def dump(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @cached_property
    def newest(self) -> dict[str, ServiceVersion]:
        """The version that each name stands for on its own."""
        found: dict[str, ServiceVersion] = {}
        for version in self.versions:
            found.setdefault(version.name, version)
        return found

    def resolve(self, ref: str) -> ServiceVersion:
        """`name` or `name@version`. Raises LookupError that says which there are."""
        name, at, version = ref.partition("@")
        if name not in self.newest:
            raise LookupError(f"no feature service {name!r}; there are {', '.join(self.newest)}")
        if not at:
            return self.newest[name]
        known = [v for v in self.versions if v.name == name]
        found = next((v for v in known if v.version == version), None)
        if found is None:
            raise LookupError(f"feature service {name!r} has no version {version!r} in feature set "
                              f"{self.feature_set[:12]}; versions are {', '.join(v.version for v in known)}")
        return found


def compile_services(plan: FeaturePlan, before: FeatureServices | None = None) -> FeatureServices:
    """The plan's services, and of those `before` what still means the same."""
    found: list[ServiceVersion] = []
    for service in plan.services:
        current = version_of(plan, service.name, (whole(plan, view) for view in service.views))
        older = [v for v in (before.versions if before else ()) if v.name == service.name and _still(plan, v)]
        found += [current, *(v for v in older if v.version != current.version)][:KEPT]
    return FeatureServices(feature_set=plan.sha256, versions=tuple(found))


def whole(plan: FeaturePlan, view: str) -> Projection:
    """All features of a view. Raises ValueError if it is not declared."""
    return Projection(view=view, features=tuple(_declared(plan, view)))


def version_of(plan: FeaturePlan, name: str, projections: Iterable[Projection]) -> ServiceVersion:
    """A service with the version that its meaning has. Raises ValueError for a view or feature that is not declared."""
    chosen = tuple(projections)
    meaning = [_meaning(plan, p) for p in chosen]
    digest = hashlib.sha256(msgspec.json.encode([name, meaning])).hexdigest()
    return ServiceVersion(name=name, version=digest[:12], projections=chosen)


def chosen(plan: FeaturePlan, asked: Iterable[str]) -> tuple[Projection, ...]:
    """`view` or `view:feature` names as projections, views in order of first mention. Raises ValueError."""
    found: dict[str, list[str]] = {}
    for name in asked:
        view, _, feature = name.partition(":")
        known = _declared(plan, view)
        if feature and feature not in known:
            raise ValueError(_no_feature(view, feature, known))
        found.setdefault(view, []).extend([feature] if feature else known)
    return tuple(Projection(view=v, features=tuple(dict.fromkeys(names))) for v, names in found.items())


def _still(plan: FeaturePlan, old: ServiceVersion) -> bool:
    try:
        return version_of(plan, old.name, old.projections).version == old.version
    except ValueError:
        return False


def _declared(plan: FeaturePlan, view: str) -> Mapping[str, Any]:
    """A view's features with their declarations, in order. Raises ValueError."""
    if view in plan.views:
        return {f.name: f for f in plan.views[view].declared}
    plain = {v.name: v for v in plan.attribute_views}
    if view not in plain:
        raise ValueError(f"no view {view!r}; views are {', '.join([*plan.views, *plain])}")
    return plain[view].fields


def _meaning(plan: FeaturePlan, projection: Projection) -> list[Any]:
    """All that a projection's values depend on."""
    known = _declared(plan, projection.view)
    for name in projection.features:
        if name not in known:
            raise ValueError(_no_feature(projection.view, name, known))
    wanted = [known[name] for name in projection.features]
    if projection.view not in plan.views:
        keys = next(v.join_keys for v in plan.attribute_views if v.name == projection.view)
        return [projection.view, keys, list(zip(projection.features, wanted, strict=True))]
    view = plan.views[projection.view]
    inputs = {column for feature in wanted for column in feature.columns}
    return [view.name, view.join_keys, wanted, [c for c in view.columns if c.name in inputs]]


def _no_feature(view: str, feature: str, known: Iterable[str]) -> str:
    return f"view {view!r} has no feature {feature!r}; it has {', '.join(known)}"
