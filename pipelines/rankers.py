"""What training the pre-ranker and the ranker have in common: rows, fit, ONNX behind a parity check, the run's record.

Trees learn from what shoppers did, a student network from the trees (`models/compression.py`). The backtest holds its
newest requests out and lets them choose the number of trees; which of the two forms serves is chosen by the window
after it (`choose_forms`). Production learns from every row with both as chosen, since its own outcome is not known yet.
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
from models.calibration import ClickModel
from models.compression import STUDENTS, Student, distil
from models.contributions import Form
from models.drift.baseline import shown_rows, summarise
from models.ranker import RankerConfig, RankingRows, importance, refit_on_all, train
from models.ranking_features import FEATURES, FEATURES_SHA
from pipelines.build_dataset import load_rows
from pipelines.plots import bars, curves
from pipelines.run_record import record
from pipelines.stages import Context, Stage

RANKERS: Final = tuple(STUDENTS)
HELD_OUT: Final = 0.2
FORMS: Final = "forms.json"
SERVES: Final = "model.onnx"
STUDENT: Final = "student.onnx"
_PARITY_ROWS: Final = 5000


@dataclass(frozen=True)
class Fitted:
    """Trees, and their student where that is to serve."""

    booster: Any
    student: Student | None = None

    @property
    def form(self) -> Form:
        return "trees" if self.student is None else "student"

    def graph(self) -> bytes:
        """What serves, as ONNX: features float32 [B, F] -> score float32 [B, 1]."""
        return onnx_export.trees(self.booster, len(FEATURES)) if self.student is None else self.student.onnx()

    def predict(self, features: NDArray[np.float32]) -> NDArray[Any]:
        """The scores [R] that `graph` must give."""
        return np.asarray((self.student or self.booster).predict(features))


def fit(context: Context, stage: Stage, name: str, config: RankerConfig) -> None:
    """Write `<name>/{model.txt,model.onnx,features.json,report.json}` of the stage; register it in production.

    `model.txt` holds the trees, `model.onnx` what serves; the backtest has `student.onnx` until both were compared.
    In production the ranker also gets `baseline.json`: what it saw and said, and the calibration that it promises.
    """
    started, threads = time.monotonic(), context.settings.threads
    rows, times = rows_for(context.rows_of(stage))
    history: list[dict[str, float]] = []
    form: Form = "student"
    file = SERVES
    if stage.name == "backtest":
        file = STUDENT
        recent = times >= np.quantile(times, 1 - HELD_OUT)
        booster, history = train(rows.requests(~recent), rows.requests(recent), config, FEATURES, threads=threads)
        trees = int(booster.best_iteration)
    else:
        trees, form = _chosen(context, name, config)
        booster = refit_on_all(rows, trees, config, FEATURES, threads=threads)
    booster.save_model(str(stage.path(f"{name}/model.txt")), num_iteration=trees)
    fitted = fitted_as(form, load_booster(stage, name), rows, name, threads)  # as written, so as compared and exported
    report = export(stage, name, fitted, rows, file)
    report |= {"trees": trees, "rows": len(rows.labels), "requests": len(rows.groups), "config": vars(config)}
    report |= {"seconds": round(time.monotonic() - started, 1), "features_sha256": FEATURES_SHA}
    if history:
        report["validation_ndcg_at_10"] = history[trees - 1]["ndcg_at_10"]
    stage.path(f"{name}/report.json").write_text(json.dumps(report, indent=2))
    if stage.name == "production" and name == "ranker":
        baseline = _baseline(stage, rows, times)
        promised = _promised(context, stage, name, config, trees, form)
        baseline |= {} if promised is None else {"click_model": promised.as_dict()}
        stage.path(f"{name}/baseline.json").write_text(json.dumps(baseline))
    context.say(f"{name} ({stage.name}): {trees} trees{' and a student' if form == 'student' else ''} on "
                f"{report['rows']:,} rows, "
                f"ONNX parity {report['parity']:.1e}, {report['seconds']} s")  # fmt: skip
    _log(context, stage, name, config, history, report, importance(booster))


def fitted_as(form: Form, booster: Any, rows: RankingRows, name: str, threads: int) -> Fitted:
    """The trees in this form; a student learns from them on `rows`."""
    if form == "trees":
        return Fitted(booster)
    return Fitted(booster, distil(rows, booster.predict(rows.features), STUDENTS[name], threads=threads))


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
        scores = fitted_as(form, booster, rows, name, threads).predict(held.features)
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


def scores_of(stage: Stage, name: str, features: NDArray[np.float32], file: str = SERVES) -> NDArray[np.float64]:
    """What the stage's model, in the form that serves, says of rows [R, F]."""
    graph = stage.path(f"{name}/{file}").read_bytes()
    return onnx_export.run(graph, {"features": features})[:, 0].astype(np.float64)


def _chosen(context: Context, name: str, config: RankerConfig) -> tuple[int, Form]:
    """Number of trees, as the backtest chose it, and form, as the window after it chose it."""
    backtest = context.stage("backtest")
    report, forms = backtest.path(f"{name}/report.json"), backtest.path(FORMS)
    trees = int(json.loads(report.read_text())["trees"]) if report.exists() else config.trees
    return trees, json.loads(forms.read_text())[name]["form"] if forms.exists() else "trees"


def export(stage: Stage, name: str, fitted: Fitted, rows: RankingRows, file: str = SERVES) -> dict[str, Any]:
    """Write the ONNX `file` and the features' names; gives form and parity for the report."""
    graph = fitted.graph()
    chosen = np.random.default_rng(0).permutation(len(rows.features))[:_PARITY_ROWS]
    sample = rows.features[chosen]
    scores = onnx_export.run(graph, {"features": sample})[:, 0]
    stage.path(f"{name}/{file}").write_bytes(graph)
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
        if history:
            run.file("curves.png", curves(history, name))
        run.file("importance.png", bars(gain, f"{name}: gain by feature"))
        run.file("importance.json", json.dumps(gain, indent=2).encode())
        run.file("report.json", stage.path(f"{name}/report.json"))
        if stage.name == "production":
            for file in ("model.onnx", "model.txt", "features.json"):
                run.file(file, stage.path(f"{name}/{file}"), folder="model")
            stage.path(f"{name}/version.txt").write_text(str(registry.register(name, run)))
