"""A self-attentive sequence encoder (after SASRec, Kang and McAuley 2018) trained with sampled softmax.

Causal attention over a sequence with a learned bias by distance; the state after each item is compared, as a cosine
over a temperature, with all items. Every place of a sequence is an example: which item comes next. Candidates are the
batch's own items and uniform ones, corrected by their expected counts. No user ids, so unknown users are served
alike.
"""

from __future__ import annotations

import copy
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import Tensor, nn
from torch.nn import functional as F

from models.recommenders.base import Floats, Histories, Ints, Recommender, Sequences, Training, lowest_where
from models.recommenders.content import vectors
from models.two_tower_training import prepare

_LONGEST = 50
_POSITIONS = 2048  # places of sequences in one batch
_MOST_UNIFORM = 1024
_MOST_PLACES = 3_000_000  # of all sequences: what memory allows
_HIDDEN_IDS = 0.1  # of items with content: so that it is trained to stand for an item nobody has touched


class Block(nn.Module):  # type: ignore[misc]
    """Attention and a feed-forward layer, each with a residual, normalised first."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.inward, self.outward = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        widen, narrow = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.forward_layer = nn.Sequential(widen, nn.GELU(), nn.Dropout(dropout), narrow)
        self.distance = nn.Parameter(torch.zeros(heads, _LONGEST))

    def forward(self, state: Tensor) -> Tensor:
        batch, length, dim = state.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.inward(self.before(state)).chunk(3, dim=2)
        )
        place = torch.arange(length)
        gap = place[:, None] - place[None, :]
        bias = self.distance[:, gap.clamp(min=0)].masked_fill(gap < 0, float("-inf"))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        state = state + self.dropout(self.outward(mixed.transpose(1, 2).reshape(batch, length, dim)))
        return cast(Tensor, state + self.dropout(self.forward_layer(self.between(state))))


class Encoder(nn.Module):  # type: ignore[misc]
    """Item vectors, from an id and, where there is any, from content; and the blocks over them. Index 0 is padding."""

    content: Tensor

    def __init__(self, content: NDArray[np.float32], dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.ids = nn.Embedding(len(content) + 1, dim, padding_idx=0)
        nn.init.normal_(self.ids.weight, std=dim**-0.5)
        self.register_buffer("content", torch.cat([torch.zeros(1, content.shape[1]), torch.from_numpy(content)]))
        if content.shape[1]:
            self.describe = nn.Linear(content.shape[1], dim, bias=False)
        self.blocks = nn.ModuleList(Block(dim, 2, dropout) for _ in range(layers))
        self.dropout, self.last = nn.Dropout(dropout), nn.LayerNorm(dim)

    def items(self, index: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Item vectors [..., dim] by index; where `hidden`, from content alone. Some ids are hidden in training."""
        if not self.content.shape[1]:
            return cast(Tensor, self.ids(index))
        if hidden is None and self.training:
            hidden = torch.rand(index.shape) < _HIDDEN_IDS
        known = self.ids(index if hidden is None else index.masked_fill(hidden, 0))
        return cast(Tensor, known + self.describe(self.content[index]))

    def forward(self, index: Tensor) -> Tensor:
        """The state after each place [B, L, dim] of sequences [B, L], padded by 0 behind their end."""
        state = self.dropout(self.items(index))
        for block in self.blocks:
            state = block(state)
        return cast(Tensor, self.last(state))


class SelfAttention(Recommender):
    """The encoder, its optimiser and the batches."""

    name = "self-attention"
    default = {"dim": 64, "layers": 2, "dropout": 0.4, "learning_rate": 2e-3, "temperature": 0.07, "start": "spectral"}
    space = {
        "dim": (64, 96), "layers": (1, 2), "dropout": (0.2, 0.4, 0.6), "learning_rate": (1e-3, 2e-3, 4e-3),
        "temperature": (0.05, 0.07, 0.1), "start": ("spectral", "random"),
    }  # fmt: skip
    rounds = 60
    refit_share = 0.35
    share = 4.0

    def fit(self, training: Training) -> None:
        prepare(training.seed, training.threads)
        config, catalogue = self.config, training.catalogue
        nothing = np.zeros((training.n_items, 0), dtype=np.float32)
        content = vectors(catalogue, 64, training.seed) if catalogue.described else nothing
        self._encoder = Encoder(content, config["dim"], config["layers"], config["dropout"])
        if config["start"] == "spectral" and min(len(training.sequences), training.n_items) > config["dim"] + 1:
            with torch.no_grad():
                self._encoder.ids.weight[1:] = torch.from_numpy(_spectral(training, config["dim"]))
        self._optimiser = torch.optim.AdamW(self._encoder.parameters(), lr=config["learning_rate"], weight_decay=0.01)
        self._seed, self._done = training.seed, 0
        self._take(training)

    def _take(self, training: Training) -> None:
        self._rows = _chunks(training.sequences.newest(_MOST_PLACES))
        counts = training.counts
        self._unknown, self._described = counts == 0, training.catalogue.described
        self._uniform = min(_MOST_UNIFORM, training.n_items)
        self._share = torch.from_numpy(np.concatenate([[0], counts / max(counts.sum(), 1)]).astype(np.float32))

    def round(self) -> float:
        torch.manual_seed(self._seed * 100_003 + self._done)
        self._done += 1
        self._encoder.train()
        losses = []
        for index in _batches(self._rows):
            if (loss := self._loss(index)) is None:
                continue
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self._encoder.parameters(), 5.0)
            self._optimiser.step()
            losses.append(float(loss.detach()))
        return float(np.mean(losses)) if losses else float("nan")

    def _loss(self, index: Tensor) -> Tensor | None:
        asked, wanted = index[:, :-1], index[:, 1:]
        real = wanted > 0
        targets = wanted[real]
        if len(targets) < 2:
            return None
        state = F.normalize(self._encoder(asked)[real], dim=1)
        n_items = len(self._share) - 1
        own = torch.unique(targets)
        extra = torch.randint(1, n_items + 1, (self._uniform,))
        candidates = torch.cat([own, extra])
        logits = state @ F.normalize(self._encoder.items(candidates), dim=1).T / self.config["temperature"]
        present = 1 - (1 - self._share) ** len(targets)  # own items are distinct: the chance to be among them
        logits = logits - torch.log(present + self._uniform / n_items + 1e-9)[candidates]
        place = torch.searchsorted(own, targets)
        again = torch.cat([torch.zeros(len(own), dtype=torch.bool), torch.isin(extra, own)])
        return F.cross_entropy(logits.masked_fill(again[None, :], float("-inf")), place)

    def snapshot(self) -> SelfAttention:
        model = copy.copy(self)
        model._encoder = copy.deepcopy(self._encoder)
        return model

    def refit(self, training: Training, rounds: int) -> Recommender:
        """Goes on from these weights with a falling rate: a third of the rounds, now with the newest items too."""
        model = self.snapshot()
        rate, more = self.config["learning_rate"] * 0.5, max(rounds // 3, 2)
        model._optimiser = torch.optim.AdamW(model._encoder.parameters(), lr=rate, weight_decay=0.01)
        model._take(training)
        for number in range(more):
            model._optimiser.param_groups[0]["lr"] = rate * (1 - number / more)
            model.round()
        return model

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def score(self, histories: Histories) -> Floats:
        self._encoder.eval()
        rows = _newest(histories.sequences)
        index = torch.arange(1, len(self._share))
        items = F.normalize(self._encoder.items(index, torch.from_numpy(self._unknown)), dim=1)
        out = np.empty((len(rows), len(items)), dtype=np.float32)
        lengths = np.maximum((rows > 0).sum(axis=1), 1)
        for start in range(0, len(rows), 512):
            part = slice(start, start + 512)
            longest = int(lengths[part].max())
            state = self._encoder(torch.from_numpy(rows[part, :longest]))
            last = state[torch.arange(len(state)), torch.from_numpy(lengths[part] - 1)]
            out[part] = (F.normalize(last, dim=1) @ items.T).numpy()
        return out if self._described else lowest_where(out, self._unknown)


def _spectral(training: Training, dim: int) -> Floats:
    """Item vectors [N, dim] of mean length one: the truncated SVD of who touched what, both sides normalised."""
    touched = training.sequences.matrix(training.n_items)
    users, items = (np.maximum(np.asarray(touched.sum(axis=axis)).ravel(), 1) ** -0.5 for axis in (1, 0))
    normalised = sparse.diags(users) @ touched @ sparse.diags(items)
    _, values, right = svds(normalised.astype(np.float32), k=dim, random_state=training.seed)
    found = right.T * np.sqrt(np.maximum(values, 0))
    return np.asarray(found / max(float(np.linalg.norm(found, axis=1).mean()), 1e-9), dtype=np.float32)


def _newest(sequences: Sequences) -> Ints:
    """int64 [S, longest]: the newest items in order, 1-based, padded by 0 behind."""
    age = sequences.from_end
    keep = age < _LONGEST
    kept = np.minimum(sequences.lengths, _LONGEST)
    rows = np.zeros((len(sequences), max(int(kept.max(initial=1)), 1)), dtype=np.int64)
    owner = sequences.owner[keep]
    rows[owner, kept[owner] - 1 - age[keep]] = sequences.items[keep] + 1
    return rows


def _chunks(sequences: Sequences) -> Ints:
    """Training rows [R, _LONGEST + 1]: each sequence in parts that overlap by one, counted from its end."""
    parts = []
    for sequence in range(len(sequences)):
        items = sequences.of(sequence) + 1
        for stop in range(len(items), 1, -_LONGEST):
            parts.append(items[max(stop - _LONGEST - 1, 0) : stop])
    rows = np.zeros((len(parts), max((len(part) for part in parts), default=2)), dtype=np.int64)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = part
    return rows


def _batches(rows: Ints) -> list[Tensor]:
    """Rows of about the same length together, in a random order by torch's generator; no row is left out."""
    lengths = (rows > 0).sum(axis=1)
    order = torch.randperm(len(rows)).numpy()
    order = order[np.argsort(lengths[order], kind="stable")]
    ends = np.cumsum(lengths[order]) // _POSITIONS
    found = []
    for number in torch.randperm(int(ends.max(initial=0)) + 1).tolist():
        mine = order[ends == number]
        if len(mine):
            found.append(torch.from_numpy(rows[mine, : int(lengths[mine].max())]))
    return found
