"""Publish the production models: gate, verified bundles, Triton's repository, the registry's aliases.

The pointer CURRENT.json is swapped last and whole; a gate that fails leaves what serves untouched.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from adapters.bundle_archive import keep
from adapters.bundles import Bundle, Gate, write_bundle
from adapters.errors import Corrupt, Unavailable
from adapters.model_repository import load, put_version
from adapters.pointers import in_use, set_current
from adapters.provenance import ROOT, commit
from adapters.registry import open_registry
from feature_repo.service_versions import FILE, FeatureServices
from models.ranking_features import FEATURES_SHA, STORED
from pipelines.gate import checks
from pipelines.stages import Context, Stage, open_context
from settings import Settings

TRITON: Final = {"two_tower_user": ("two-tower", "user_encoder.onnx"), "preranker": ("preranker", "model.onnx"),
                 "ranker": ("ranker", "model.onnx")}  # fmt: skip
KEPT_BUNDLES: Final = 3


def run(context: Context, stage: Stage) -> None:
    """Publish `stage`. Raises Corrupt, naming the failed checks, if the gate is not passed."""
    settings, found = context.settings, checks(context, stage)
    for check in found:
        context.say(f"  gate {'passed' if check.passed else 'FAILED'}: {check.name} ({check.found})")
    failed = [f"{check.name} ({check.found})" for check in found if not check.passed]
    if failed:
        raise Corrupt(f"gate not passed, nothing was published: {'; '.join(failed)}")
    bundles = bundles_of(context, stage, {check.name: check.found for check in found}, settings.published, "passed")
    into_triton(context.settings, bundles, context.say)
    keep(settings.published, bundles)
    set_current(settings.published, bundles)
    _tag(context, bundles)
    forget_old(settings.published)
    versions = ", ".join(f"{name} {bundle.version}" for name, bundle in bundles.items())
    context.say(f"published: {versions}")


def bundles_of(context: Context, stage: Stage, found: dict[str, str], folder: Path, gate: Gate) -> dict[str, Bundle]:
    """Write the stage's bundles under `folder`, with the findings of the gate and its verdict."""
    two_tower = stage.path("two_tower/version.txt").read_text().strip()
    shared = {
        "data_version": context.meta.get("data_version"), "until_ms": stage.until_ms, "gate": found,
        "seed": context.settings.seed,
    }  # fmt: skip
    items = {"items.txt": stage.path("two_tower/items.txt")}
    towers = [f"two_tower/{n}" for n in (
        "user_encoder.onnx", "item_encoder.onnx", "users.txt", "items.txt", "categories.txt")]  # fmt: skip
    plan: dict[str, tuple[str, dict[str, Path], dict[str, Any]]] = {
        "two-tower": (
            two_tower, _files(stage, towers),
            {"reads": ["user_recent_items"], "report": _json(stage, "two_tower/report.json")},
        ),
        "index": (
            _dated(stage, "index/items.faiss", two_tower), _files(stage, ["index/items.faiss"]) | items,
            {"encoder_version": two_tower, "report": _json(stage, "index/report.json")},
        ),
        "cooccurrence": (
            _dated(stage, "cooccurrence/neighbours.npz", two_tower),
            _files(stage, ["cooccurrence/neighbours.npz"]) | items,
            {"report": _json(stage, "cooccurrence/report.json")},
        ),
        "popularity": (
            _dated(stage, "popularity/popularity.npz", two_tower),
            _files(stage, ["popularity/popularity.npz"]) | items, {},
        ),
    }  # fmt: skip
    for name in ("preranker", "ranker"):
        files = _files(stage, [f"{name}/{file}" for file in ("model.onnx", "model.txt", "features.json")])
        files |= {file.name: file for file in [stage.path(f"{name}/baseline.json")] if file.exists()}
        version = stage.path(f"{name}/version.txt").read_text().strip()
        report = _json(stage, f"{name}/report.json")
        meta = {"features_sha256": FEATURES_SHA, "reads": list(STORED), "form": report["form"], "report": report}
        plan[name] = (version, files, meta | _feature_versions(context.settings))
    return {
        name: write_bundle(folder, name, version, files, shared | meta, gate=gate)
        for name, (version, files, meta) in plan.items()
    }


def _feature_versions(settings: Settings) -> dict[str, str]:
    """The feature service that the rankers read, by version: the feature server goes on answering this one."""
    services = FeatureServices.load(settings.features / FILE)
    return {"feature_service": services.newest["ranking"].ref, "feature_set": services.feature_set}


def _files(stage: Stage, paths: list[str]) -> dict[str, Path]:
    return {Path(path).name: stage.path(path) for path in paths}


def _json(stage: Stage, path: str) -> Any:
    return json.loads(stage.path(path).read_text())


def _dated(stage: Stage, path: str, two_tower: str) -> str:
    """A version for what is built, not trained: the data's end, and a digest of content, items and the encoder."""
    content = stage.path(path).read_bytes() + stage.path("two_tower/items.txt").read_bytes() + two_tower.encode()
    digest = hashlib.sha256(content).hexdigest()[:8]
    return f"{datetime.fromtimestamp(stage.until_ms / 1000, UTC):%Y%m%dT%H%M}-{digest}"


def into_triton(
    settings: Settings, bundles: Mapping[str, Bundle], say: Callable[[str], None], *, bypass: bool = False
) -> None:
    """Put the models of `bundles` beside those in use and have Triton load them. Raises Corrupt if one is ungated."""
    used = in_use(settings.published)
    for model, (name, file) in TRITON.items():
        config = ROOT / "deploy" / "triton" / model / "config.pbtxt"
        put_version(
            settings.triton_models, model, config, bundles[name], file, keep=used.get(name, set()), bypass=bypass
        )
    try:
        for model in TRITON:
            load(settings.triton, model)
        say("  Triton loaded the new versions")
    except Unavailable as error:
        say(f"  Triton is not running ({error.detail.splitlines()[0]}); it loads them when it starts")


def _tag(context: Context, bundles: dict[str, Bundle]) -> None:
    registry = open_registry(context.settings.mlflow_uri, context.settings.home)
    for name in ("two-tower", "preranker", "ranker"):
        tags = {
            "data_version": str(context.meta.get("data_version")), "git_commit": commit(),
            "manifest_sha256": bundles[name].manifest_sha256, "gate": "passed",
        }  # fmt: skip
        registry.promote(name, int(bundles[name].version), tags)


def forget_old(folder: Path) -> None:
    """Drop versions beyond the newest KEPT_BUNDLES of each name, never one that a pointer names."""
    for name, used in in_use(folder).items():
        versions = sorted((p for p in (folder / name).iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
        for old in versions[:-KEPT_BUNDLES]:
            if old.name not in used:
                shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    context = open_context()
    run(context, context.stage("production"))


if __name__ == "__main__":
    main()
