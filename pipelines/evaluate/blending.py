"""Learns the blend on validation, and checks by cross-validation that it deserves its place; else the best model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.recommenders.base import Floats, Histories, Ints, Recommender
from models.recommenders.blend import Blend, Examples, learn, uniform
from pipelines.evaluate.measure import batches, hide, judge, table
from pipelines.evaluate.protocols import Questions

MOST_QUESTIONS: Final = 6000
LEARNED: Final = "learned blend"
EQUAL: Final = "uniform blend"
_FOLDS: Final = 2


@dataclass(frozen=True)
class Choice:
    """What is served as the blend: weights over `members`, or the one model that no weights beat."""

    kind: str
    members: tuple[str, ...]
    blend: Blend | None
    validation: dict[str, float]
    """NDCG of everything that was considered, on questions that its weights were not learned from."""

    def combine(self, scores: Mapping[str, Floats], histories: Histories, *, mask: bool) -> Floats:
        """The blended scores; with `mask` seen items do not shape the members' spreads and ranks."""
        if self.blend is None:
            return scores[self.members[0]].copy()
        return self.blend.combine(_prepared([scores[name] for name in self.members], histories, mask))

    def as_dict(self) -> dict[str, object]:
        weights = None
        if self.blend is not None:
            names = [f"{m} ({kind})" for kind in ("score", "rank") for m in self.members]
            weights = {n: round(float(w), 4) for n, w in zip(names, self.blend.weights, strict=True)}
        values = {name: round(value, 5) for name, value in self.validation.items()}
        return {"kind": self.kind, "weights": weights, "validation": values}


def choose(
    models: Mapping[str, Recommender], questions: Questions, n_items: int, *, mask: bool, k: int, seed: int,
    threads: int = 1,
) -> Choice:  # fmt: skip
    """The learned or the uniform blend if it beats the best model on questions it has not seen; else that model."""
    names = tuple(models)
    order = np.random.default_rng(seed).permutation(len(questions))[:MOST_QUESTIONS]
    folds = [questions.take(np.sort(part)) for part in np.array_split(order, _FOLDS)]
    examples = [_examples(models, fold, n_items, mask) for fold in folds]
    measured: dict[str, list[NDArray[np.float64]]] = {}
    for held, fold in enumerate(folds):
        others = _joined([one for number, one in enumerate(examples) if number != held])
        blends = (Choice(LEARNED, names, learn(others, len(names)), {}), Choice(EQUAL, names, uniform(len(names)), {}))
        judged = judge(partial(_answers, models, blends, mask), fold, n_items, mask=mask, k=0, threads=threads)
        for name, one in judged.items():
            measured.setdefault(name, []).append(table(one.ahead, fold, [f"ndcg@{k}"])[f"ndcg@{k}"])
    values = {name: np.concatenate(parts) for name, parts in measured.items()}
    means = {name: float(one.mean()) for name, one in values.items()}
    best_single = max(names, key=lambda name: means[name])
    kind = max((LEARNED, EQUAL), key=lambda name: means[name])
    if means[kind] <= means[best_single]:
        return Choice(f"best single model: {best_single}", (best_single,), None, means)
    blend = learn(_joined(examples), len(names)) if kind == LEARNED else uniform(len(names))
    return Choice(kind, names, blend, means)


def _answers(
    models: Mapping[str, Recommender], blends: Sequence[Choice], mask: bool, histories: Histories
) -> dict[str, Floats]:
    scores = {name: model.score(histories) for name, model in models.items()}
    return {choice.kind: choice.combine(scores, histories, mask=mask) for choice in blends} | scores


def _prepared(scores: Sequence[Floats], histories: Histories, mask: bool) -> list[Floats]:
    return [hide(one.copy(), histories) if mask else one for one in scores]


def _examples(models: Mapping[str, Recommender], questions: Questions, n_items: int, mask: bool) -> Examples:
    found = Examples()
    for part in batches(questions, n_items):
        asked = questions.histories.part(part)
        wanted: list[Ints] = [questions.relevant.of(row) for row in range(part.start, part.stop)]
        found.add(_prepared([model.score(asked) for model in models.values()], asked, mask), wanted)
    return found


def _joined(parts: Sequence[Examples]) -> Examples:
    whole = Examples()
    for part in parts:
        whole.features += part.features
        whole.sizes += part.sizes
        whole.relevant += part.relevant
    return whole
