"""Train the two-tower model of a stage, export both towers to ONNX behind a parity check, and log the run.

The first stage trains in full: early stopping on the window before its cut, then one gentle pass over the newest days.
A later stage starts from the one before and makes that pass alone, on what has happened since.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.registry import open_registry
from models import onnx_export
from models.popularity import DAY_MS
from models.two_tower import Content, TwoTower, TwoTowerConfig
from models.two_tower_training import Examples, Fitted, Questions, fit, follow, prepare, recall_at_100
from pipelines.history import History
from pipelines.plots import curves
from pipelines.run_record import record
from pipelines.stages import Context, Stage, open_context

PARITY: Final = 1e-4
_MOST_QUESTIONS: Final = 2000
_MOST_EXAMPLES: Final = 200_000
_BUDGET: Final = 700_000
"""Examples that training may see over all epochs: a small history is seen more often."""


def run(context: Context, stage: Stage) -> None:
    """Write the stage's `two_tower/` files and record the run; in production also register the version."""
    fitted, report = make(context, stage)
    _log(context, stage, fitted, report)


def make(context: Context, stage: Stage) -> tuple[Fitted, dict[str, Any]]:
    """Train and write the stage's files, without the registry: the model and its report."""
    started, history, config = time.monotonic(), context.history, _config(context, stage)
    n_users, content = history.counts_at(stage.until_ms)[0], content_of(history, stage.until_ms)
    older = context.before(stage)
    if older is None:
        fitted = _train(context, stage, config, n_users, content)
    else:
        fitted = _follow(context, stage, older, config, n_users, content)
    report = _write(stage, history, fitted.model, content, n_users)
    report |= {"recall_at_100": fitted.best_recall, "seconds": round(time.monotonic() - started, 1)}
    stage.path("two_tower/report.json").write_text(json.dumps(report, indent=2))
    context.say(f"two-tower ({stage.name}): validation Recall@100 {fitted.best_recall:.3f}, "
                f"ONNX parity {report['parity']:.1e}, {report['seconds']} s")  # fmt: skip
    return fitted, report


def content_of(history: History, until_ms: int) -> Content:
    """The catalogue before `until_ms` for the towers: indices 1-based, row 0 the unknown item."""
    n_items = history.counts_at(until_ms)[1]
    category, price = (column[:n_items] for column in history.content_at(until_ms))
    log_price = np.concatenate([[np.nan], np.log1p(price)]).astype(np.float32)
    return Content(np.concatenate([[0], category + 1]).astype(np.int64), log_price)


def examples_of(history: History, since_ms: int, until_ms: int) -> Examples:
    """Interactions within [since, until) with what the shopper had touched before each."""
    keep = history.positives & (history.time_ms >= since_ms) & (history.time_ms < until_ms)
    user, item, time_ms = history.user[keep], history.item[keep], history.time_ms[keep]
    recent = history.recent.before(user, time_ms) + 1
    return Examples(user + 1, item + 1, recent, time_ms)


def questions_of(history: History, since_ms: int, until_ms: int, n_users: int, n_items: int) -> Questions:
    """Shoppers at their first touch within [since, until), and the known items that they touched from then on."""
    keep = history.positives & (history.time_ms >= since_ms) & (history.time_ms < until_ms) & (history.item < n_items)
    user, item, time_ms = history.user[keep], history.item[keep], history.time_ms[keep]
    shoppers, first, inverse = np.unique(user, return_index=True, return_inverse=True)
    grouped = np.split(item[np.argsort(inverse, kind="stable")], np.cumsum(np.bincount(inverse))[:-1])
    chosen = np.random.default_rng(0).permutation(len(shoppers))[:_MOST_QUESTIONS]
    recent = history.recent.before(shoppers[chosen], time_ms[first[chosen]]) + 1
    recent[recent > n_items] = 0
    known = np.where(shoppers[chosen] < n_users, shoppers[chosen] + 1, 0)
    return Questions(known, recent, [np.unique(grouped[i]) + 1 for i in chosen])


def load_model(stage: Stage, history: History) -> TwoTower:
    """The stage's trained model."""
    report = json.loads(stage.path("two_tower/report.json").read_text())
    model = TwoTower(report["users"], content_of(history, stage.until_ms), TwoTowerConfig(**report["config"]))
    model.load_state_dict(torch.load(stage.path("two_tower/weights.pt"), weights_only=True))
    return model


def _config(context: Context, stage: Stage) -> TwoTowerConfig:
    days = stage.window_days
    tail = 3 * days if stage.tail_ms is None else stage.tail_ms / DAY_MS
    return TwoTowerConfig(seed=context.settings.seed, half_life_days=14 * days, tail_days=tail)


def _train(context: Context, stage: Stage, config: TwoTowerConfig, n_users: int, content: Content) -> Fitted:
    history, cut = context.history, stage.until_ms - stage.window_ms
    examples = examples_of(history, 0, cut)
    newest = np.arange(len(examples)) >= len(examples) - _MOST_EXAMPLES
    config = replace(config, epochs=int(np.clip(_BUDGET // max(len(examples), 1), 3, 12)))
    identity = f"{context.meta.get('data_version')} {stage.until_ms} {config} {n_users} {len(examples)}"
    checkpoint = stage.path(f"two_tower/checkpoint-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.pt")
    fitted = fit(
        n_users, content, examples.where(newest), questions_of(history, cut, stage.until_ms, n_users, content.n_items),
        config, checkpoint=checkpoint, threads=context.settings.threads,
        report=lambda epoch, m: context.say(
            f"  epoch {epoch}: loss {m['loss']:.3f}, Recall@100 {m['recall_at_100']:.3f}"
        ),
    )  # fmt: skip
    follow(fitted.model, _tail(history, stage, config))
    checkpoint.unlink(missing_ok=True)
    return fitted


def _tail(history: History, stage: Stage, config: TwoTowerConfig) -> Examples:
    return examples_of(history, stage.until_ms - int(config.tail_days * DAY_MS), stage.until_ms)


def _follow(
    context: Context, stage: Stage, older: Stage, config: TwoTowerConfig, n_users: int, content: Content
) -> Fitted:
    history = context.history
    before = load_model(older, history)
    questions = questions_of(history, older.until_ms, stage.until_ms, *history.counts_at(older.until_ms))
    score = recall_at_100(before, questions)
    prepare(config.seed, context.settings.threads)
    model = TwoTower(n_users, content, config)
    model.grow_from(before.state_dict())
    loss = follow(model, _tail(history, stage, config))
    return Fitted(model, [{"recall_at_100": score, "loss": loss}])


def _write(stage: Stage, history: History, model: TwoTower, content: Content, n_users: int) -> dict[str, Any]:
    rows = np.arange(1, min(content.n_items, 500) + 1)
    users = rows % (n_users + 1)
    recent = np.random.default_rng(0).integers(0, content.n_items + 1, (len(rows), model.config.recent))
    user_onnx, item_onnx = onnx_export.user_encoder(model), onnx_export.item_encoder(model)
    embeddings = model.embed_items()
    parity = max(
        onnx_export.max_difference(
            onnx_export.run(user_onnx, {"user_index": users, "recent_items": recent}), model.embed_users(users, recent)
        ),
        onnx_export.max_difference(onnx_export.run(item_onnx, _item_inputs(content, rows)), embeddings[rows - 1]),
    )
    torch.save(model.state_dict(), stage.path("two_tower/weights.pt"))
    np.save(stage.path("two_tower/embeddings.npy"), embeddings)
    stage.path("two_tower/user_encoder.onnx").write_bytes(user_onnx)
    stage.path("two_tower/item_encoder.onnx").write_bytes(item_onnx)
    names = (("users", history.users[:n_users]), ("items", history.items[: content.n_items]),
             ("categories", history.categories[: content.n_categories]))  # fmt: skip
    for name, ids in names:
        stage.path(f"two_tower/{name}.txt").write_text("".join(f"{i}\n" for i in ids))
    return {"parity": parity, "users": n_users, "items": content.n_items, "config": vars(model.config)}


def _item_inputs(content: Content, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    return {"item_index": rows, "category_index": content.category[rows], "log_price": content.log_price[rows]}


def _log(context: Context, stage: Stage, fitted: Fitted, report: dict[str, Any]) -> None:
    registry = open_registry(context.settings.mlflow_uri, context.settings.home)
    older = context.before(stage)
    reads = [] if older is None else [older.path("two_tower/weights.pt")]
    with record(registry, context, "train_two_tower", stage, report["config"], reads) as run:
        for epoch, metrics in enumerate(fitted.history, start=1):
            run.metrics(metrics, step=epoch)
        run.metrics({"onnx_max_abs_difference": report["parity"], "seconds": report["seconds"]})
        run.file("curves.png", curves(fitted.history, "two-tower"))
        run.file("report.json", stage.path("two_tower/report.json"))
        if stage.name == "production":
            for name in ("user_encoder.onnx", "item_encoder.onnx"):
                run.file(name, stage.path(f"two_tower/{name}"), folder="model")
            version = registry.register("two-tower", run)
            stage.path("two_tower/version.txt").write_text(str(version))


def main() -> None:
    context = open_context()
    run(context, context.stage("production"))


if __name__ == "__main__":
    main()
