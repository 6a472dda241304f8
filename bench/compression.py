"""Quality, latency and size of compressed models, and which one a rule takes: `python -m bench.compression`.

On what `make demo` trained: models of the backtest, judged on the window after it, which none of them saw.
  ranker  LightGBM's trees; pruned to fewer; a student network distilled from them in FP32, INT8 dynamic and INT8 static
  tower   the shopper tower in FP32, INT8 dynamic and INT8 static
Quality: NDCG@10 of the requests' rows, Recall@100 over the whole catalogue; the difference from the first form with a
paired bootstrap. Latency: one thread, all forms in turn, so that a noisy second meets every form. The rule takes, per
number of rows, the quickest form (median) whose quality surely lost less than `--lose` of the first form's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from models import onnx_export
from models.bootstrap import paired
from models.compression import STUDENTS, distil, int8_dynamic, int8_static
from models.metrics import ranks_from_scores, recall
from models.ranker import RankingRows, ndcg_of
from models.ranking_features import FEATURES
from pipelines.build_dataset import load_rows
from pipelines.choose_forms import LOSE
from pipelines.rankers import load_booster, rows_for
from pipelines.stages import Context, open_context
from pipelines.train_two_tower import questions_of
from settings import ROOT

OUT: Final = ROOT / "bench" / "results" / "compression.json"
CALIBRATED: Final = 0.3
"""The oldest requests of the window choose ranges and number of trees; the others judge."""
SHAPES: Final = {"ranker": (50, 200, 1_000), "tower": (1, 8, 64)}
PRUNED: Final = (0.1, 0.2, 0.35, 0.5, 0.7)


@dataclass(frozen=True)
class Task:
    """A model in its forms, the first of them the one to compare with; `quality` gives a value per request."""

    name: str
    metric: str
    forms: Mapping[str, bytes]
    inputs: Mapping[str, NDArray[Any]]
    quality: Mapping[str, NDArray[np.float64]]


def ranker(context: Context, say: Any) -> Task:
    stage = context.stage("backtest")
    learn, (rows, times) = rows_for(context.rows_of(stage))[0], load_rows(stage)
    early = times <= np.quantile(times, CALIBRATED)
    chosen, judged = rows.requests(early), rows.requests(~early)
    booster = load_booster(stage, "ranker")
    forms = {"trees": onnx_export.trees(booster, len(FEATURES))}
    name, fewer = pruned(booster, chosen)
    forms[name] = fewer
    say("the student learns")
    teacher = booster.predict(learn.features)
    student = distil(learn, teacher, STUDENTS["ranker"], threads=context.settings.threads).onnx()
    sample = {"features": chosen.features[:20_000]}
    forms |= {"student": student, "student int8 dynamic": int8_dynamic(student),
              "student int8 static": int8_static(student, sample)}  # fmt: skip
    inputs = {"features": judged.features}
    quality = {name: ndcg_of(judged, onnx_export.run(form, inputs)[:, 0]) for name, form in forms.items()}
    return Task("ranker", "NDCG@10", forms, inputs, quality)


def pruned(booster: Any, rows: RankingRows) -> tuple[str, bytes]:
    """The fewest trees that keep 99 % of the NDCG@10 of all, on rows that judge nothing later; its name and ONNX."""
    total = booster.num_trees()
    whole = ndcg_of(rows, booster.predict(rows.features)).mean()
    for share in (*PRUNED, 1.0):
        trees = max(1, round(share * total))
        if ndcg_of(rows, booster.predict(rows.features, num_iteration=trees)).mean() >= 0.99 * whole:
            break
    fewer = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=trees))
    return f"{trees} of {total} trees", onnx_export.trees(fewer, len(FEATURES))


def tower(context: Context, _: Any) -> Task:
    stage, last = context.stage("backtest"), context.stage("production")
    model = stage.path("two_tower/user_encoder.onnx").read_bytes()
    items = np.load(stage.path("two_tower/embeddings.npy"), allow_pickle=False)
    users = int(json.loads(stage.path("two_tower/report.json").read_text())["users"])
    asked = questions_of(context.history, stage.until_ms, last.until_ms, users, len(items))
    before = questions_of(context.history, stage.until_ms - stage.window_ms, stage.until_ms, users, len(items))
    sample = {"user_index": before.users[:2_000], "recent_items": before.recent[:2_000]}
    forms = {"fp32": model, "int8 dynamic": int8_dynamic(model), "int8 static": int8_static(model, sample)}
    inputs = {"user_index": asked.users, "recent_items": asked.recent}

    def quality(form: bytes) -> NDArray[np.float64]:
        scores = onnx_export.run(form, inputs) @ items.T
        pairs = zip(scores, asked.relevant, strict=True)
        return np.array([recall(ranks_from_scores(row, relevant - 1), 100) for row, relevant in pairs])

    return Task("tower", "Recall@100", forms, inputs, {name: quality(form) for name, form in forms.items()})


def latencies(task: Task, rounds: int) -> dict[int, dict[str, NDArray[np.float64]]]:
    """Milliseconds by number of rows and form; every round runs all forms once."""
    sessions = {name: onnx_export.session(form) for name, form in task.forms.items()}
    return {rows: in_turns(sessions, task.inputs, rows, rounds) for rows in SHAPES[task.name]}


def judged(task: Task, times: Mapping[int, Mapping[str, NDArray[np.float64]]], lose: float, seed: int
           ) -> dict[str, Any]:
    """The table of one model, and the form that the rule takes per number of rows."""
    first = next(iter(task.forms))
    base = float(task.quality[first].mean())
    rows = []
    for name, form in task.forms.items():
        values = task.quality[name]
        differs = paired(values, task.quality[first], seed=seed).as_dict()
        rows.append({"form": name, "bytes": len(form), "quality": round(float(values.mean()), 5), "difference": differs,
                     "kept": name == first or differs["low"] >= -lose * base,
                     "latency_ms": {str(n): percentiles(ms[name]) for n, ms in times.items()}})  # fmt: skip
    return {"model": task.name, "metric": task.metric, "requests": len(task.quality[first]), "rows": rows,
            "rule": {str(n): choose(rows, str(n)) for n in times}}  # fmt: skip


def choose(rows: Sequence[Mapping[str, Any]], shape: str) -> str:
    """The quickest form that kept its quality; INT8 where it is slower is not taken, nor what lost too much."""
    return str(min((row for row in rows if row["kept"]), key=lambda row: row["latency_ms"][shape]["p50"])["form"])


def show(found: Sequence[Mapping[str, Any]], console: Console) -> None:
    for one in found:
        shapes = list(one["rule"])
        unseen = f"{one['requests']:,} requests that nobody learned from"
        table = Table(title=f"{one['model']}: {unseen}; milliseconds, one thread")
        for heading in ("form", "KiB", one["metric"], "difference", *(f"{n} rows" for n in shapes), "P99"):
            table.add_column(heading, justify="right")
        for row in one["rows"]:
            marks = ["*" if one["rule"][n] == row["form"] else "" for n in shapes]
            times = [f"{row['latency_ms'][n]['p50']:.3f}{mark}" for n, mark in zip(shapes, marks, strict=True)]
            table.add_row(row["form"], f"{row['bytes'] / 1024:,.0f}", f"{row['quality']:.4f}",
                          difference(row["difference"]), *times,
                          f"{row['latency_ms'][shapes[-1]]['p99']:.3f}")  # fmt: skip
        console.print(table)
    console.print("* taken by the rule: the quickest form that surely kept its quality")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compression", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=400, help="runs per form and number of rows")
    parser.add_argument("--lose", type=float, default=LOSE, help="share of quality that may be lost")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--save", type=Path, help=f"where to write the result, e.g. {OUT.relative_to(ROOT)}")
    asked = parser.parse_args(arguments)
    console = Console(stderr=True)
    context = open_context()
    found: list[dict[str, Any]] = []
    samples: dict[str, NDArray[np.float32]] = {}
    for make in (tower, ranker):
        task = make(context, console.print)
        console.print(f"{task.name}: {len(task.forms)} forms are timed")
        times = latencies(task, asked.rounds)
        found.append(judged(task, times, asked.lose, asked.seed))
        for n, of in times.items():
            samples |= {f"{task.name}|{n}|{form}": ms.astype(np.float32) for form, ms in of.items()}
        samples |= {f"{task.name}|quality|{form}": values.astype(np.float32) for form, values in task.quality.items()}
    show(found, console)
    if asked.save:
        result = {"command": "python -m bench.compression", "seed": asked.seed, "lose": asked.lose, "models": found,
                  "rounds": asked.rounds, **provenance.stamp()}  # fmt: skip
        keep(result, samples, asked.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
