"""What training the pre-ranker and the ranker have in common: rows, fit, ONNX behind a parity check, the run's record.

The backtest holds its newest requests out and lets them choose the number of trees; production learns from every row
with that number, since its own outcome is not known yet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import lightgbm
import numpy as np

from adapters.registry import open_registry
from models import onnx_export
from models.calibration import ClickModel
from models.drift.baseline import shown_rows, summarise
from models.ranker import RankerConfig, RankingRows, importance, refit_on_all, train
from models.ranking_features import FEATURES, FEATURES_SHA
from pipelines.build_dataset import load_rows
from pipelines.plots import bars, curves
from pipelines.run_record import record
from pipelines.stages import Context, Stage

HELD_OUT = 0.2
_PARITY_ROWS = 5000


def fit(context: Context, stage: Stage, name: str, config: RankerConfig) -> None:
    """Write `<name>/{model.txt,model.onnx,features.json,report.json}` of the stage; register it in production.

    In production the ranker also gets `baseline.json`: what it saw and said, and the calibration that it promises.
    """
    started, threads = time.monotonic(), context.settings.threads
    rows, times = rows_for(context.rows_of(stage))
    history: list[dict[str, float]] = []
    if stage.name == "backtest":
        recent = times >= np.quantile(times, 1 - HELD_OUT)
        booster, history = train(rows.requests(~recent), rows.requests(recent), config, FEATURES, threads=threads)
        trees = int(booster.best_iteration)
    else:
        trees = _chosen_trees(context, name, config)
        booster = refit_on_all(rows, trees, config, FEATURES, threads=threads)
    report = _write(stage, name, booster, rows, trees)
    report |= {"trees": trees, "rows": len(rows.labels), "requests": len(rows.groups), "config": vars(config)}
    report |= {"seconds": round(time.monotonic() - started, 1), "features_sha256": FEATURES_SHA}
    if history:
        report["validation_ndcg_at_10"] = history[trees - 1]["ndcg_at_10"]
    stage.path(f"{name}/report.json").write_text(json.dumps(report, indent=2))
    if stage.name == "production" and name == "ranker":
        baseline = _baseline(stage, load_booster(stage, name), rows, times)
        promised = _promised(context, stage, name, config, trees)
        baseline |= {} if promised is None else {"click_model": promised.as_dict()}
        stage.path(f"{name}/baseline.json").write_text(json.dumps(baseline))
    context.say(f"{name} ({stage.name}): {trees} trees on {report['rows']:,} rows, "
                f"ONNX parity {report['parity']:.1e}, {report['seconds']} s")  # fmt: skip
    _log(context, stage, name, config, history, report, importance(booster))


def _baseline(stage: Stage, booster: Any, rows: RankingRows, times: np.ndarray) -> dict[str, Any]:
    """What the ranker saw and said of those rows that it would have shown."""
    scores = booster.predict(rows.features)
    keep = shown_rows(scores, rows.groups)
    meta = {"source": "training", "since_ms": int(times.min()), "until_ms": stage.until_ms}
    return summarise(
        rows.features[keep], FEATURES, scores[keep], rows.labels[keep], requests=len(rows.groups), meta=meta
    )


def _promised(context: Context, stage: Stage, name: str, config: RankerConfig, trees: int) -> ClickModel | None:
    """P(click) by score, from scores of requests that their model did not learn from; None where too few were clicked.

    A model is too sure of the rows it learned. The newest window is scored by one that ended before it: by the
    backtest's where it did, else by one that is fitted for this alone.
    """
    *before, newest = context.rows_of(stage)
    if newest.folder == context.stage("backtest").folder:
        booster = load_booster(newest, name)
    else:
        booster = refit_on_all(rows_for(before)[0], trees, config, FEATURES, threads=context.settings.threads)
    held = load_rows(newest)[0]
    scores = booster.predict(held.features)
    keep = shown_rows(scores, held.groups)
    clicked = held.labels[keep] >= 1
    return ClickModel.fit(scores[keep], clicked) if clicked.any() and not clicked.all() else None


def rows_for(stages: Sequence[Stage]) -> tuple[RankingRows, np.ndarray]:
    """The rows of these stages' windows as one, and the time of each request."""
    parts = [load_rows(one) for one in stages]
    places = [r.positions if r.positions is not None else np.zeros(len(r.labels), np.int64) for r, _ in parts]
    place = np.concatenate(places)
    rows = RankingRows(
        np.concatenate([r.features for r, _ in parts]), np.concatenate([r.labels for r, _ in parts]),
        np.concatenate([r.groups for r, _ in parts]), place if place.any() else None,
    )  # fmt: skip
    return rows, np.concatenate([t for _, t in parts])


def load_booster(stage: Stage, name: str) -> Any:
    """The stage's LightGBM model."""
    return lightgbm.Booster(model_file=str(stage.path(f"{name}/model.txt")))


def _chosen_trees(context: Context, name: str, config: RankerConfig) -> int:
    report = context.stage("backtest").path(f"{name}/report.json")
    return int(json.loads(report.read_text())["trees"]) if report.exists() else config.trees


def _write(stage: Stage, name: str, booster: Any, rows: RankingRows, trees: int) -> dict[str, Any]:
    booster.save_model(str(stage.path(f"{name}/model.txt")), num_iteration=trees)
    booster = load_booster(stage, name)  # what is written is what is compared and exported
    graph = onnx_export.trees(booster, len(FEATURES))
    chosen = np.random.default_rng(0).permutation(len(rows.features))[:_PARITY_ROWS]
    sample = rows.features[chosen]
    scores = onnx_export.run(graph, {"features": sample})[:, 0]
    stage.path(f"{name}/model.onnx").write_bytes(graph)
    stage.path(f"{name}/features.json").write_text(json.dumps(list(FEATURES)))
    return {"parity": onnx_export.max_difference(scores, booster.predict(sample)), "parity_rows": len(sample)}


def _log(
    context: Context, stage: Stage, name: str, config: RankerConfig, history: list[dict[str, float]],
    report: dict[str, Any], gain: dict[str, float],
) -> None:  # fmt: skip
    registry = open_registry(context.settings.mlflow_uri, context.settings.home)
    reads = [one.path("dataset/rows.npz") for one in context.rows_of(stage)]
    with record(registry, context, f"train_{name}", stage, vars(config), reads) as run:
        for iteration, metrics in enumerate(history, start=1):
            run.metrics(metrics, step=iteration)
        run.metrics({"onnx_max_abs_difference": report["parity"], "trees": report["trees"], "rows": report["rows"]})
        if history:
            run.file("curves.png", curves(history, name))
        run.file("importance.png", bars(gain, f"{name}: gain by feature"))
        run.file("importance.json", json.dumps(gain, indent=2).encode())
        run.file("report.json", stage.path(f"{name}/report.json"))
        if stage.name == "production":
            for file in ("model.onnx", "model.txt", "features.json"):
                run.file(file, stage.path(f"{name}/{file}"), folder="model")
            stage.path(f"{name}/version.txt").write_text(str(registry.register(name, run)))
