"""Training of the two-tower model: temporal validation, early stopping on Recall@100, checkpoints.

Every epoch draws its order, dropouts and negatives from (seed, epoch) alone; so a run that was killed and resumed from
its checkpoint ends with the very weights of a run that was not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from models.metrics import ranks_from_scores, recall
from models.popularity import DAY_MS
from models.two_tower import Content, TwoTower, TwoTowerConfig

RECALL_AT = 100
Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Examples:
    """One row per interaction, in order of time; indices 1-based.

    `users` int64 [E], `items` int64 [E], `recent` int64 [E, recent] (items before it, newest first, 0 = pad),
    `time_ms` int64 [E].
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    recent: NDArray[np.int64]
    time_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    def where(self, keep: NDArray[np.bool_]) -> Examples:
        return Examples(self.users[keep], self.items[keep], self.recent[keep], self.time_ms[keep])


@dataclass(frozen=True)
class Questions:
    """Shoppers at one moment and what they touched afterwards: `relevant[v]` holds item indices (1-based)."""

    users: NDArray[np.int64]
    recent: NDArray[np.int64]
    relevant: list[NDArray[np.int64]]


@dataclass
class Fitted:
    """A trained model and what happened in each epoch."""

    model: TwoTower
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def best_recall(self) -> float:
        return max((h["recall_at_100"] for h in self.history if "recall_at_100" in h), default=float("nan"))


@dataclass
class _Run:
    """The state that a checkpoint holds."""

    model: TwoTower
    optimiser: torch.optim.Optimizer
    best: dict[str, Any]
    epoch: int = 0
    waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "best": self.best,
            "epoch": self.epoch, "waited": self.waited, "history": self.history,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".part")
        torch.save(state, staged)
        staged.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best, self.epoch = state["best"], state["epoch"]
        self.waited, self.history = state["waited"], state["history"]


def recall_at_100(model: TwoTower, questions: Questions) -> float:
    """Mean Recall@100 over the whole catalogue, nothing masked; NaN without questions."""
    items, found = model.embed_items(), []
    for start in range(0, len(questions.users), 256):
        part = slice(start, start + 256)
        scores = model.embed_users(questions.users[part], questions.recent[part]) @ items.T
        pairs = zip(scores, questions.relevant[part], strict=True)
        found += [recall(ranks_from_scores(row, relevant - 1), RECALL_AT) for row, relevant in pairs]
    return float(np.mean(found)) if found else float("nan")


def fit(
    n_users: int, content: Content, examples: Examples, questions: Questions, config: TwoTowerConfig, *,
    checkpoint: Path | None = None, report: Report | None = None, threads: int = 2,
) -> Fitted:
    """Train on `examples`, stop early on the later `questions`. Goes on from `checkpoint` if it exists."""
    prepare(config.seed, threads)
    model = TwoTower(n_users, content, config)
    spectral_start(model, examples)
    run = _Run(model, torch.optim.Adam(model.parameters(), lr=config.learning_rate), {})
    if checkpoint is not None and checkpoint.exists():
        run.load(checkpoint)
    while run.epoch < config.epochs and run.waited < config.patience:
        loss = train_epoch(model, run.optimiser, examples, run.epoch)
        score = recall_at_100(model, questions)
        if not run.history or not score <= max(h["recall_at_100"] for h in run.history):
            run.best, run.waited = {k: v.clone() for k, v in model.state_dict().items()}, 0
        else:
            run.waited += 1
        run.history.append({"loss": loss, "recall_at_100": score})
        run.epoch += 1
        if report:
            report(run.epoch, run.history[-1])
        if checkpoint is not None:
            run.save(checkpoint)
    model.load_state_dict(run.best)
    return Fitted(model, run.history)


def follow(model: TwoTower, examples: Examples, epoch: int = 1000) -> float:
    """One gentle pass over the newest `tail_days` of `examples`, in place; the mean loss. How a model keeps up."""
    config = model.config
    newest = examples.time_ms.max(initial=0) - config.tail_days * DAY_MS
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate * config.tail_rate)
    return train_epoch(model, optimiser, examples.where(examples.time_ms >= newest), epoch)


def spectral_start(model: TwoTower, examples: Examples) -> None:
    """Start both id tables from the truncated SVD of the shopper x item matrix (log counts), rows of mean length 1.

    A network that starts at the best linear model needs few epochs. Unknown rows stay zero.
    """
    n_users, n_items = len(model.user_tower.ids.weight), len(model.log_price)
    counts = sparse.coo_matrix((np.ones(len(examples)), (examples.users, examples.items)), (n_users, n_items)).tocsr()
    degree = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0) ** -0.5, np.asarray(counts.sum(axis=0)).ravel()
    scaled = sparse.diags(degree[0]) @ counts.log1p() @ sparse.diags(np.maximum(degree[1], 1.0) ** -0.25)
    rank = min(model.config.dim, n_users - 1, n_items - 1)
    left, values, right = svds(scaled, k=rank, random_state=model.config.seed)
    for table, vectors in ((model.user_tower.ids, left), (model.item_tower.ids, right.T)):
        start = vectors * np.sqrt(np.maximum(values, 0.0))
        start /= max(float(np.linalg.norm(start, axis=1).mean()), 1e-9)
        with torch.no_grad():
            table.weight.zero_()
            table.weight[:, :rank] = torch.from_numpy(start.astype(np.float32))
            table.weight[0] = 0


def prepare(seed: int, threads: int) -> None:
    """Same seed, same weights: deterministic kernels, a fixed number of threads."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)


def train_epoch(model: TwoTower, optimiser: torch.optim.Optimizer, examples: Examples, epoch: int) -> float:
    """One pass in a random order that depends on (seed, epoch) alone; the mean loss."""
    config = model.config
    torch.manual_seed(config.seed * 100_003 + epoch)
    n_items = len(model.log_price) - 1
    age_days = (examples.time_ms.max(initial=0) - examples.time_ms) / DAY_MS
    weight = torch.from_numpy((0.5 ** (age_days / config.half_life_days)).astype(np.float32))
    users, items = torch.from_numpy(examples.users), torch.from_numpy(examples.items)
    recent = torch.from_numpy(examples.recent)
    batch = min(config.batch, max(len(examples), 1))
    share = torch.bincount(items, minlength=n_items + 1) / max(len(items), 1)
    log_q = torch.log(batch * share + config.uniform_negatives / n_items + 1e-9)
    model.train()
    losses = []
    for rows in torch.randperm(len(examples)).split(batch):
        if len(rows) < min(batch, 32):
            continue  # a sliver of a batch has too few negatives to learn from
        extra = torch.randint(1, n_items + 1, (config.uniform_negatives,))
        loss = model.loss(users[rows], recent[rows], items[rows], weight[rows], extra, log_q)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses)) if losses else float("nan")
