"""Learns the blend on validation, and checks by cross-validation that it deserves its place; else the best model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import paired
from models.recommenders.base import Floats, Histories, Ints, Recommender
from models.recommenders.blend import Blend, Examples, learn, uniform
from pipelines.evaluate.measure import batches, hide, value
from pipelines.evaluate.protocols import Questions

MOST_QUESTIONS = 6000
_FOLDS = 2


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
    models: Mapping[str, Recommender], questions: Questions, n_items: int, *, mask: bool, k: int, seed: int
) -> Choice:
    """The learned or the uniform blend if it beats the best model on questions it has not seen; else that model."""
    names = tuple(models)
    order = np.random.default_rng(seed).permutation(len(questions))[:MOST_QUESTIONS]
    folds = [questions.take(np.sort(part)) for part in np.array_split(order, _FOLDS)]
    examples = [_examples(models, fold, n_items, mask) for fold in folds]
    measured: dict[str, list[NDArray[np.float64]]] = {}
    for held, fold in enumerate(folds):
        others = _joined([one for number, one in enumerate(examples) if number != held])
        learned = learn(others, len(names))
        for name, model in models.items():
            measured.setdefault(name, []).append(value(model.score, fold, n_items, mask=mask, k=k))
        for kind, weights in (("learned blend", learned), ("uniform blend", uniform(len(names)))):
            choice = Choice(kind, names, weights, {})

            blended = partial(_blended, choice, models, mask)
            measured.setdefault(kind, []).append(value(blended, fold, n_items, mask=mask, k=k))
    values = {name: np.concatenate(parts) for name, parts in measured.items()}
    means = {name: float(one.mean()) for name, one in values.items()}
    best_single = max(names, key=lambda name: means[name])
    kind = max(("learned blend", "uniform blend"), key=lambda name: means[name])
    if means[kind] <= means[best_single] or paired(values[kind], values[best_single], seed=seed).mean <= 0:
        return Choice(f"best single model: {best_single}", (best_single,), None, means)
    blend = learn(_joined(examples), len(names)) if kind == "learned blend" else uniform(len(names))
    return Choice(kind, names, blend, means)


def _blended(choice: Choice, models: Mapping[str, Recommender], mask: bool, histories: Histories) -> Floats:
    return choice.combine({name: model.score(histories) for name, model in models.items()}, histories, mask=mask)


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
