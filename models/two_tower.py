"""The two-tower retrieval model: a shopper and an item meet as two L2-normalised vectors whose cosine ranks.

Shopper tower: an id, and the recent items (id and category) pooled by attention. Item tower: an id, a category and a
price. Ids are dropped at random in training, so that an unknown shopper (index 0) is served from the recent items and
an unknown item (index 0) from its content. Indices are 1-based; 0 is padding or unknown. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

PRICE_CENTRE, PRICE_SCALE = 7.5, 1.5  # log1p(cents) of an ordinary price, and its spread


@dataclass(frozen=True)
class TwoTowerConfig:
    """Everything that shapes the network and its training; checks itself."""

    dim: int = 64
    hidden: int = 128
    recent: int = 20
    temperature: float = 0.08
    user_dropout: float = 0.3
    item_dropout: float = 0.15
    batch: int = 512
    uniform_negatives: int = 256
    learning_rate: float = 3e-3
    epochs: int = 3
    patience: int = 1
    half_life_days: float = 14.0
    """An interaction of this age counts half in the loss."""
    tail_days: float = 4.0
    """After early stopping one pass over the newest days lets the validation day be learned too."""
    tail_rate: float = 0.35
    """Learning rate of that pass, as a share of `learning_rate`."""
    seed: int = 7

    def __post_init__(self) -> None:
        if min(self.dim, self.hidden, self.recent, self.batch, self.epochs, self.patience) < 1:
            raise ValueError(f"dim, hidden, recent, batch, epochs and patience must be at least 1: {self}")
        if not (0 < self.temperature <= 1 and 0 <= self.user_dropout < 1 and 0 <= self.item_dropout < 1):
            raise ValueError(f"temperature in (0, 1] and dropouts in [0, 1) are needed: {self}")


@dataclass(frozen=True)
class Content:
    """What is known of the items before anybody clicks; row 0 is the unknown item.

    `category` int64 [N+1] (0 = unknown), `log_price` float32 [N+1] = log1p(cents), NaN = unknown.
    """

    category: NDArray[np.int64]
    log_price: NDArray[np.float32]

    @property
    def n_items(self) -> int:
        return len(self.category) - 1

    @property
    def n_categories(self) -> int:
        return int(self.category.max(initial=0))


class ItemTower(nn.Module):  # type: ignore[misc]
    """(item_index [B], category_index [B], log_price [B]) -> embedding [B, dim]."""

    def __init__(self, n_items: int, n_categories: int, config: TwoTowerConfig) -> None:
        super().__init__()
        self.ids = nn.Embedding(n_items + 1, config.dim, padding_idx=0)
        self.categories = nn.Embedding(n_categories + 1, config.dim)
        self.content = nn.Sequential(
            nn.Linear(config.dim + 3, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.dim)
        )
        nn.init.normal_(self.ids.weight, std=0.05)
        nn.init.normal_(self.categories.weight, std=0.1)
        self.dropout = config.item_dropout

    def forward(self, item_index: Tensor, category_index: Tensor, log_price: Tensor) -> Tensor:
        unknown = torch.isnan(log_price)
        price = torch.where(unknown, torch.zeros_like(log_price), (log_price - PRICE_CENTRE) / PRICE_SCALE)
        numbers = torch.stack([price, price * price, unknown.to(price.dtype)], dim=1)
        content = self.content(torch.cat([self.categories(category_index), numbers], dim=1))
        return F.normalize(content + self.ids(_drop(item_index, self.dropout, self.training)), dim=1)


class UserTower(nn.Module):  # type: ignore[misc]
    """(user_index [B], recent_items [B, recent] newest first) -> embedding [B, dim]."""

    category_of: Tensor

    def __init__(self, n_users: int, items: ItemTower, category_of: NDArray[np.int64], config: TwoTowerConfig) -> None:
        super().__init__()
        self.ids = nn.Embedding(n_users + 1, config.dim)
        self.recent_ids, self.recent_categories = items.ids, items.categories  # shared: both towers teach them
        self.place = nn.Parameter(torch.zeros(config.recent, config.dim))
        self.attend = nn.Sequential(nn.Linear(config.dim, config.dim), nn.Tanh(), nn.Linear(config.dim, 1, bias=False))
        self.mix = nn.Sequential(
            nn.Linear(3 * config.dim, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.dim)
        )
        nn.init.normal_(self.ids.weight, std=0.05)
        self.register_buffer("category_of", torch.from_numpy(category_of), persistent=False)
        self.dropout = config.user_dropout

    def forward(self, user_index: Tensor, recent_items: Tensor) -> Tensor:
        known = (recent_items > 0).to(self.place.dtype).unsqueeze(2)
        looked = self.recent_ids(recent_items) + self.recent_categories(self.category_of[recent_items])
        weight = torch.exp(self.attend(looked + self.place).clamp(-8.0, 8.0)) * known
        pooled = (weight * looked).sum(dim=1) / (weight.sum(dim=1) + 1e-6)
        newest = looked[:, 0] * known[:, 0]
        shopper = self.ids(_drop(user_index, self.dropout, self.training))
        return F.normalize(shopper + pooled + self.mix(torch.cat([shopper, pooled, newest], dim=1)), dim=1)


class TwoTower(nn.Module):  # type: ignore[misc]
    """Both towers and the items' content."""

    log_price: Tensor

    def __init__(self, n_users: int, content: Content, config: TwoTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.item_tower = ItemTower(content.n_items, content.n_categories, config)
        self.user_tower = UserTower(n_users, self.item_tower, content.category, config)
        self.register_buffer("log_price", torch.from_numpy(content.log_price), persistent=False)

    def items(self, item_index: Tensor) -> Tensor:
        """Embeddings [B, dim] of known items by index."""
        category, price = self.user_tower.category_of[item_index], self.log_price[item_index]
        return cast(Tensor, self.item_tower(item_index, category, price))

    def loss(
        self, users: Tensor, recent: Tensor, items: Tensor, weight: Tensor, extra: Tensor, log_q: Tensor
    ) -> Tensor:
        """Sampled softmax over the batch's items and `extra` uniform ones, corrected by their log expected counts.

        `log_q` [N+1] is log(expected occurrences among the candidates); subtracting it makes the sampled softmax
        estimate the full one (Yi et al. 2019). Other occurrences of the positive are masked.
        """
        candidates = torch.cat([items, extra])
        logits = self.user_tower(users, recent) @ self.items(candidates).T / self.config.temperature
        logits = logits - log_q[candidates]
        target = torch.arange(len(items))
        repeat = items[:, None] == candidates[None, :]
        repeat[target, target] = False
        losses = F.cross_entropy(logits.masked_fill(repeat, float("-inf")), target, reduction="none")
        return (losses * weight).sum() / weight.sum()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def embed_items(self) -> NDArray[np.float32]:
        """All known items, float32 [N, dim]; row i is item index i + 1."""
        self.eval()
        index = torch.arange(1, len(self.log_price))
        return np.concatenate([self.items(part).numpy() for part in index.split(8192)]).astype(np.float32)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def embed_users(self, users: NDArray[np.int64], recent: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [B, dim] for user indices [B] and recent item indices [B, recent], newest first."""
        self.eval()
        pairs = zip(torch.from_numpy(users).split(8192), torch.from_numpy(recent).split(8192), strict=True)
        parts = [self.user_tower(u, r).numpy() for u, r in pairs]
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, self.config.dim), np.float32)

    def grow_from(self, older: Mapping[str, Tensor]) -> None:
        """Start from an older model's weights, whose shoppers, items and categories are the first ones of this model.

        What the older model did not know starts as the unknown shopper (row 0) or with its initial values.
        """
        mine = self.state_dict()
        for name, value in older.items():
            if name == "user_tower.ids.weight":
                mine[name][:] = value[0]
            mine[name][: len(value)] = value
        self.load_state_dict(mine)


def _drop(index: Tensor, share: float, training: bool) -> Tensor:
    if not training or share == 0:
        return index
    return index * (torch.rand(index.shape) >= share).to(index.dtype)
