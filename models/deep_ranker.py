"""A deep ranker: a deep and cross network (DCNv2, Wang et al. 2021) over the rows that the trees rank.

Two objectives. `listwise`: softmax cross-entropy over a request's rows against their gains (ListNet's top-one form, Cao
et al. 2007). `engagement`: logistic regression in which a positive weighs what it is worth, as YouTube's ranker weighs
a click by its watch time (Covington et al. 2016): the odds are then the expected worth. A marketplace has no watch
time; a click is worth 1, a cart 2, an order 3.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import onnx_export
from models.ranker import RankingRows, ndcg_of
from models.scaling import Scaling

Objective = Literal["listwise", "engagement"]
_PREDICTED: Final = 65_536  # rows at a time


@dataclass(frozen=True)
class DeepRankerConfig:
    objective: Objective = "listwise"
    crosses: int = 2
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.1
    epochs: int = 12
    patience: int = 3
    """Epochs without a better NDCG@10 on validation after which training ends."""
    batch_rows: int = 4096
    """Of whole requests."""
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    seed: int = 7


class DeepRanker(nn.Module):  # type: ignore[misc]
    """features float32 [B, F] -> score float32 [B, 1]: crosses and a deep part side by side, then one linear layer."""

    def __init__(self, features: NDArray[np.float32], config: DeepRankerConfig) -> None:
        super().__init__()
        width = features.shape[1]
        self.scaling = Scaling(features)
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(config.crosses))
        layers: list[nn.Module] = []
        deep = width
        for hidden in config.hidden:
            layers += [nn.Linear(deep, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
            deep = hidden
        self.deep = nn.Sequential(*layers)
        self.score = nn.Linear(width + deep, 1)

    def forward(self, features: Tensor) -> Tensor:
        first = self.scaling(features)
        crossed = first
        for cross in self.crosses:
            crossed = first * cross(crossed) + crossed
        return self.score(torch.cat([crossed, self.deep(first)], dim=1))


def train(
    rows: RankingRows, validation: RankingRows, config: DeepRankerConfig, *, threads: int = 2
) -> tuple[DeepRanker, list[dict[str, float]]]:
    """The network of the best epoch by NDCG@10 on `validation`, which lies after `rows`; loss and NDCG by epoch."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(threads)
    rng = np.random.default_rng(config.seed)
    model = DeepRanker(rows.features, config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    best, history = copy.deepcopy(model.state_dict()), list[dict[str, float]]()
    for _ in range(config.epochs):
        model.train()
        losses = []
        for batch in _batches(rows, config.batch_rows, rng):
            optimiser.zero_grad()
            loss = _loss(model(batch.features)[:, 0], batch, config.objective)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        found = float(ndcg_of(validation, predict(model, validation.features)).mean())
        history.append({"loss": float(np.mean(losses)), "ndcg_at_10": found})
        reached = [one["ndcg_at_10"] for one in history]
        if found == max(reached):
            best = copy.deepcopy(model.state_dict())
        elif len(reached) - 1 - int(np.argmax(reached)) >= config.patience:
            break
    model.load_state_dict(best)
    return model, history


def predict(model: DeepRanker, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores float32 [R]."""
    model.eval()
    with torch.no_grad():
        parts = [model(part)[:, 0].numpy() for part in torch.from_numpy(features).split(_PREDICTED)]
    return np.concatenate(parts)


def export(model: DeepRanker) -> bytes:
    """ONNX: features float32 [B, F] -> score float32 [B, 1]."""
    sample = torch.zeros((2, len(model.scaling.mean)))
    return onnx_export.export(model, (sample,), ["features"], "score")


@dataclass(frozen=True)
class _Batch:
    """Rows of whole requests: `owner` int64 [R] says of which one each is, of `requests`."""

    features: Tensor
    gains: Tensor
    owner: Tensor
    requests: int


def _batches(rows: RankingRows, most: int, rng: np.random.Generator) -> Iterator[_Batch]:
    """All requests in a new order, as many at a time as have about `most` rows."""
    begins = np.concatenate([[0], np.cumsum(rows.groups)])
    chosen: list[int] = []
    size, order = 0, rng.permutation(len(rows.groups))
    for n, request in enumerate(order):
        chosen.append(int(request))
        size += int(rows.groups[request])
        if size >= most or n == len(order) - 1:
            at = np.concatenate([np.arange(begins[r], begins[r + 1]) for r in chosen])
            owner = np.repeat(np.arange(len(chosen)), rows.groups[chosen])
            yield _Batch(torch.from_numpy(rows.features[at]), torch.from_numpy(rows.labels[at].astype(np.float32)),
                         torch.from_numpy(owner), len(chosen))  # fmt: skip
            chosen, size = [], 0


def _loss(scores: Tensor, batch: _Batch, objective: Objective) -> Tensor:
    if objective == "engagement":
        weights = torch.where(batch.gains > 0, batch.gains, torch.ones_like(batch.gains))
        clicked = (batch.gains > 0).float()
        return nn.functional.binary_cross_entropy_with_logits(scores, clicked, weights)
    most = torch.full((batch.requests,), -torch.inf).scatter_reduce(0, batch.owner, scores.detach(), "amax")
    total = torch.zeros(batch.requests).scatter_add(0, batch.owner, torch.exp(scores - most[batch.owner]))
    log_share = scores - most[batch.owner] - torch.log(total)[batch.owner]
    worth = torch.zeros(batch.requests).scatter_add(0, batch.owner, batch.gains)
    target = batch.gains / worth.clamp(min=1e-9)[batch.owner]
    return -(target * log_share).sum() / (worth > 0).sum().clamp(min=1)
