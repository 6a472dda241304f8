"""Rankers by objective and form on one protocol: `python -m bench.rankers`.

On what `make demo` trained: all learn from the backtest's rows (the newest fifth of the requests chooses trees and
epochs) and are judged on the window after it, which none of them saw: the rows that serving would have ranked.
  lambdarank                 the shipped ranker's trees: LightGBM, position bias learned beside them
  lambdarank's student       the network that learns from those trees, and serves where it keeps their quality
  lambdarank, no positions   the same without positions
  engagement trees           LightGBM, logistic, a positive weighs what it is worth (click 1, cart 2, order 3)
  DCNv2 listwise             a deep and cross network, softmax over each request's rows
  DCNv2 engagement           the same network, the weighted logistic objective
  lambdarank + DCNv2         standardised scores of the two within the request, added
NDCG@10 of what was touched, and of what was put into a cart or bought alone; differences from the first with a paired
bootstrap. Clicks depend on places: all are judged by the places that earlier models gave.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from adapters import provenance
from bench.numbers import difference
from bench.samples import keep, percentiles
from bench.timing import in_turns
from models import deep_ranker, onnx_export
from models.bootstrap import interval, paired
from models.deep_ranker import DeepRankerConfig, Objective
from models.ranker import RANKER, RankingRows, ndcg_of, parameters, train
from models.ranking_features import FEATURES
from pipelines.build_dataset import load_rows
from pipelines.rankers import HELD_OUT, fitted_as, rows_for
from pipelines.stages import open_context
from settings import ROOT

OUT: Final = ROOT / "bench" / "results" / "rankers.json"
SHAPE: Final = 200  # rows that serving ranks
ROUNDS: Final = 300
BLEND: Final = "lambdarank + DCNv2"

Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Fitted:
    """A ranker: its ONNX form, and how long it took to learn."""

    form: bytes
    seconds: float


@dataclass(frozen=True)
class Data:
    """What is learned from, what chooses, and what judges."""

    learn: RankingRows
    choose: RankingRows
    judge: RankingRows
    threads: int


def data_of(threads: int) -> Data:
    context = open_context()
    stage = context.stage("backtest")
    rows, times = rows_for(context.rows_of(stage))
    recent = times >= np.quantile(times, 1 - HELD_OUT)
    return Data(rows.requests(~recent), rows.requests(recent), load_rows(stage)[0], threads)


def lambdarank(data: Data, *, positions: bool = True) -> bytes:
    learn = data.learn if positions else replace(data.learn, positions=None)
    return onnx_export.trees(_lambdarank(learn, data), len(FEATURES))


def student(data: Data) -> bytes:
    return fitted_as("student", _lambdarank(data.learn, data), data.learn, "ranker", data.threads).graph()


def _lambdarank(learn: RankingRows, data: Data) -> Any:
    return _best(train(learn, data.choose, RANKER, FEATURES, threads=data.threads)[0])


def engagement_trees(data: Data) -> bytes:
    """The shipped ranker's trees, but logistic and weighted."""
    asked = parameters(RANKER, data.threads) | {"objective": "binary", "bagging_by_query": False}

    def of(rows: RankingRows, reference: Any = None) -> Any:
        weights = np.maximum(rows.labels, 1)
        return lightgbm.Dataset(rows.features, rows.labels >= 1, weight=weights, group=rows.groups,
                                feature_name=list(FEATURES), reference=reference, free_raw_data=False)  # fmt: skip

    first = of(data.learn)
    stop = lightgbm.early_stopping(RANKER.patience, verbose=False)
    booster = lightgbm.train(asked, first, RANKER.trees, valid_sets=[of(data.choose, first)], callbacks=[stop])
    # A classifier's ONNX gives a class; the same trees read as a regression give their sum, the log odds.
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    summed = text.replace("objective=binary sigmoid:1\n", "objective=regression\n")
    summed = summed.replace("[objective: binary]", "[objective: regression]")
    return onnx_export.trees(lightgbm.Booster(model_str=summed), len(FEATURES))


def dcn(data: Data, objective: Objective) -> bytes:
    model, _ = deep_ranker.train(data.learn, data.choose, DeepRankerConfig(objective), threads=data.threads)
    return deep_ranker.export(model)


KINDS: Final[Mapping[str, Callable[[Data], bytes]]] = {
    "lambdarank": lambdarank,
    "lambdarank's student": student,
    "lambdarank, no positions": lambda data: lambdarank(data, positions=False),
    "engagement trees": engagement_trees,
    "DCNv2 listwise": lambda data: dcn(data, "listwise"),
    "DCNv2 engagement": lambda data: dcn(data, "engagement"),
}


def _best(booster: Any) -> Any:
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))


def fit(data: Data, say: Callable[[str], None]) -> dict[str, Fitted]:
    out = {}
    for name, make in KINDS.items():
        begun = time.perf_counter()
        out[name] = Fitted(make(data), time.perf_counter() - begun)
        say(f"{name}: {out[name].seconds:.0f} s")
    return out


def standardised(rows: RankingRows, scores: Scores) -> NDArray[np.float64]:
    """Scores of mean 0 and deviation 1 within each request."""
    owner = np.repeat(np.arange(len(rows.groups)), rows.groups)
    centred = scores - (np.bincount(owner, scores) / rows.groups)[owner]
    spread = np.sqrt(np.bincount(owner, centred**2) / rows.groups)[owner]
    return centred / np.maximum(spread, 1e-9)


def bought(rows: RankingRows) -> RankingRows:
    """The same rows; only what was put into a cart or bought is relevant."""
    return replace(rows, labels=np.where(rows.labels >= 2, rows.labels, 0))


def judged(fitted: Mapping[str, Fitted], rows: RankingRows) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Model -> metric -> a value per request."""
    scores: dict[str, Scores] = {
        name: onnx_export.run(one.form, {"features": rows.features})[:, 0] for name, one in fitted.items()
    }
    deep = "DCNv2 listwise"
    scores[BLEND] = sum(standardised(rows, scores[one]) for one in ("lambdarank", deep))  # type: ignore[assignment]
    touched = {"ndcg@10": rows, "ndcg@10, carts and orders": bought(rows)}
    return {name: {metric: ndcg_of(of, found) for metric, of in touched.items()} for name, found in scores.items()}


def latencies(fitted: Mapping[str, Fitted], rows: RankingRows) -> dict[str, NDArray[np.float64]]:
    """Milliseconds for `SHAPE` rows on one thread."""
    sessions = {name: onnx_export.session(one.form) for name, one in fitted.items()}
    return in_turns(sessions, {"features": rows.features}, SHAPE, ROUNDS)


def table_of(fitted: Mapping[str, Fitted], values: Mapping[str, Mapping[str, NDArray[np.float64]]],
             times: Mapping[str, NDArray[np.float64]], seed: int) -> list[dict[str, Any]]:  # fmt: skip
    """A row per model: each metric with its interval and its difference from the first model."""
    first = values["lambdarank"]
    return [
        {
            "model": name, "requests": {metric: len(found) for metric, found in of.items()},
            "metrics": {metric: interval(found, seed=seed).as_dict() for metric, found in of.items()},
            "difference": {metric: paired(found, first[metric], seed=seed).as_dict() for metric, found in of.items()},
            "fit_seconds": round(fitted[name].seconds, 1) if name in fitted else None,
            "kib": round(len(fitted[name].form) / 1024) if name in fitted else None,
            "latency_ms": percentiles(times[name]) if name in times else None,
        }
        for name, of in values.items()
    ]  # fmt: skip


def show(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    table = Table(title="Rankers on requests that nobody learned from")
    metrics = list(rows[0]["metrics"])
    for head in ("model", *metrics, "difference", "fit s", f"ms, {SHAPE} rows"):
        table.add_column(head, justify="left" if head == "model" else "right")
    for row in rows:
        cells = [f"{row['metrics'][m]['mean']:.4f}" for m in metrics]
        cells.append(difference(row["difference"][metrics[0]]))
        cells += ["" if row["fit_seconds"] is None else f"{row['fit_seconds']:.0f}"]
        cells += ["" if row["latency_ms"] is None else f"{row['latency_ms']['p50']:.2f}"]
        table.add_row(row["model"], *cells)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rankers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path, help=f"where to write the result, e.g. {OUT.relative_to(ROOT)}")
    asked = parser.parse_args(arguments)
    console = Console(stderr=True)
    data = data_of(asked.threads)
    fitted = fit(data, console.print)
    values, times = judged(fitted, data.judge), latencies(fitted, data.judge)
    rows = table_of(fitted, values, times, asked.seed)
    show(rows, console)
    if asked.save:
        sizes = {"learn": len(data.learn.groups), "choose": len(data.choose.groups), "judge": len(data.judge.groups)}
        result = {"command": "python -m bench.rankers", "seed": asked.seed, "threads": asked.threads,
                  "requests": sizes, "rows": rows, **provenance.stamp()}  # fmt: skip
        samples = {f"{name}|{metric}": found.astype(np.float32) for name, of in values.items()
                   for metric, found in of.items()}  # fmt: skip
        keep(result, samples | {f"{name}|ms": ms.astype(np.float32) for name, ms in times.items()}, asked.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
