"""What training the pre-ranker and the ranker have in common: rows, fit, ONNX behind a parity check, the run's record.

Trees learn from what shoppers did, a student network from the trees (`models/compression.py`); the student serves where
it keeps the trees' quality, because it takes a fraction of their time. The backtest holds its newest requests out and
lets them choose the number of trees and which of the two serves; production learns from every row with both as chosen,
since its own outcome is not known yet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from adapters.registry import open_registry
from models import onnx_export
from models.bootstrap import paired
from models.calibration import ClickModel
from models.compression import STUDENTS, Student, distil
from models.contributions import Form
from models.drift.baseline import shown_rows, summarise
from models.ranker import RankerConfig, RankingRows, importance, ndcg_of, refit_on_all, train
from models.ranking_features import FEATURES, FEATURES_SHA
from pipelines.build_dataset import load_rows
from pipelines.plots import bars, curves
from pipelines.run_record import record
from pipelines.stages import Context, Stage

HELD_OUT: Final = 0.2
LOSE: Final = 0.01
"""Share of the trees' NDCG@10 that a student may lack on the held-out requests and still serve. Their mean decides:
they are too few for an interval so narrow; `bench.compression` gives it, from a whole window."""
_PARITY_ROWS: Final = 5000


@dataclass(frozen=True)
class Fitted:
    """Trees and their student, one of which (`form`) serves."""

    booster: Any
    student: Student
    form: Form

    def graph(self) -> bytes:
        """What serves, as ONNX: features float32 [B, F] -> score float32 [B, 1]."""
        return self.student.onnx() if self.form == "student" else onnx_export.trees(self.booster, len(FEATURES))

    def predict(self, features: NDArray[np.float32]) -> NDArray[Any]:
        """The scores [R] that `graph` must give."""
        chosen = self.student if self.form == "student" else self.booster
        return np.asarray(chosen.predict(features))


def fit(context: Context, stage: Stage, name: str, config: RankerConfig) -> None:
    """Write `<name>/{model.txt,model.onnx,features.json,report.json}` of the stage; register it in production.

    `model.txt` holds the trees, `model.onnx` what serves. In production the ranker also gets `baseline.json`: what it
    saw and said, and the calibration that it promises.
    """
    started, threads = time.monotonic(), context.settings.threads
    rows, times = rows_for(context.rows_of(stage))
    history: list[dict[str, float]] = []
    chosen: dict[str, Any] = {}
    if stage.name == "backtest":
        recent = times >= np.quantile(times, 1 - HELD_OUT)
        learn, held_out = rows.requests(~recent), rows.requests(recent)
        booster, history = train(learn, held_out, config, FEATURES, threads=threads)
        trees = int(booster.best_iteration)
        fitted, chosen = _compared(learn, _written(stage, name, booster, trees), name, held_out, threads)
    else:
        trees, form = _chosen(context, name, config)
        booster = refit_on_all(rows, trees, config, FEATURES, threads=threads)
        written = _written(stage, name, booster, trees)
        fitted = Fitted(written, _taught(rows, written, name, threads), form)
    report = _export(stage, name, fitted, rows) | chosen
    report |= {"trees": trees, "rows": len(rows.labels), "requests": len(rows.groups), "config": vars(config)}
    report |= {"seconds": round(time.monotonic() - started, 1), "features_sha256": FEATURES_SHA}
    if history:
        report["validation_ndcg_at_10"] = history[trees - 1]["ndcg_at_10"]
    stage.path(f"{name}/report.json").write_text(json.dumps(report, indent=2))
    if stage.name == "production" and name == "ranker":
        baseline = _baseline(stage, rows, times)
        promised = _promised(context, stage, name, config, trees, fitted.form)
        baseline |= {} if promised is None else {"click_model": promised.as_dict()}
        stage.path(f"{name}/baseline.json").write_text(json.dumps(baseline))
    context.say(f"{name} ({stage.name}): {trees} trees on {report['rows']:,} rows, {fitted.form} serves, "
                f"ONNX parity {report['parity']:.1e}, {report['seconds']} s")  # fmt: skip
    _log(context, stage, name, config, history, report, importance(booster))


def _taught(rows: RankingRows, booster: Any, name: str, threads: int) -> Student:
    return distil(rows, booster.predict(rows.features), STUDENTS[name], threads=threads)


def _compared(
    learn: RankingRows, booster: Any, name: str, held_out: RankingRows, threads: int
) -> tuple[Fitted, dict[str, Any]]:
    """Both forms, with the one that the held-out requests choose; and what they say of them, for the report."""
    student = _taught(learn, booster, name, threads)
    teacher, pupil = (ndcg_of(held_out, one.predict(held_out.features)) for one in (booster, student))
    if not len(teacher):
        return Fitted(booster, student, "trees"), {}
    form: Form = "student" if pupil.mean() >= (1 - LOSE) * teacher.mean() else "trees"
    found = {"ndcg_at_10": {"trees": float(teacher.mean()), "student": float(pupil.mean())},
             "student_minus_trees": paired(pupil, teacher, seed=0).as_dict()}  # fmt: skip
    return Fitted(booster, student, form), found


def _baseline(stage: Stage, rows: RankingRows, times: np.ndarray) -> dict[str, Any]:
    """What the ranker saw and said of those rows that it would have shown."""
    scores = scores_of(stage, "ranker", rows.features)
    keep = shown_rows(scores, rows.groups)
    meta = {"source": "training", "since_ms": int(times.min()), "until_ms": stage.until_ms}
    return summarise(
        rows.features[keep], FEATURES, scores[keep], rows.labels[keep], requests=len(rows.groups), meta=meta
    )


def _promised(
    context: Context, stage: Stage, name: str, config: RankerConfig, trees: int, form: Form
) -> ClickModel | None:
    """P(click) by score, from scores of requests that their model did not learn from; None where too few were clicked.

    A model is too sure of the rows it learned. The newest window is scored by one that ended before it: by the
    backtest's where it did, else by one that is fitted for this alone.
    """
    *before, newest = context.rows_of(stage)
    held, threads = load_rows(newest)[0], context.settings.threads
    if newest.folder == context.stage("backtest").folder:
        scores = scores_of(newest, name, held.features)
    else:
        rows = rows_for(before)[0]
        booster = refit_on_all(rows, trees, config, FEATURES, threads=threads)
        scores = Fitted(booster, _taught(rows, booster, name, threads), form).predict(held.features)
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
    """The stage's trees."""
    return lightgbm.Booster(model_file=str(stage.path(f"{name}/model.txt")))


def scores_of(stage: Stage, name: str, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """What the stage's model, in the form that serves, says of rows [R, F]."""
    graph = stage.path(f"{name}/model.onnx").read_bytes()
    return onnx_export.run(graph, {"features": features})[:, 0].astype(np.float64)


def _chosen(context: Context, name: str, config: RankerConfig) -> tuple[int, Form]:
    """Number of trees and form, as the backtest chose them."""
    path = context.stage("backtest").path(f"{name}/report.json")
    if not path.exists():
        return config.trees, "trees"
    report = json.loads(path.read_text())
    return int(report["trees"]), report["form"]


def _written(stage: Stage, name: str, booster: Any, trees: int) -> Any:
    """The first `trees` as `model.txt`, and as they are read from there: what is taught, compared and exported."""
    booster.save_model(str(stage.path(f"{name}/model.txt")), num_iteration=trees)
    return load_booster(stage, name)


def _export(stage: Stage, name: str, fitted: Fitted, rows: RankingRows) -> dict[str, Any]:
    graph = fitted.graph()
    chosen = np.random.default_rng(0).permutation(len(rows.features))[:_PARITY_ROWS]
    sample = rows.features[chosen]
    scores = onnx_export.run(graph, {"features": sample})[:, 0]
    stage.path(f"{name}/model.onnx").write_bytes(graph)
    stage.path(f"{name}/features.json").write_text(json.dumps(list(FEATURES)))
    parity = onnx_export.max_difference(scores, fitted.predict(sample))
    return {"form": fitted.form, "parity": parity, "parity_rows": len(sample)}


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
        if "ndcg_at_10" in report:
            run.metrics({f"held_out_ndcg_at_10_{form}": found for form, found in report["ndcg_at_10"].items()})
        if history:
            run.file("curves.png", curves(history, name))
        run.file("importance.png", bars(gain, f"{name}: gain by feature"))
        run.file("importance.json", json.dumps(gain, indent=2).encode())
        run.file("report.json", stage.path(f"{name}/report.json"))
        if stage.name == "production":
            for file in ("model.onnx", "model.txt", "features.json"):
                run.file(file, stage.path(f"{name}/{file}"), folder="model")
            stage.path(f"{name}/version.txt").write_text(str(registry.register(name, run)))
