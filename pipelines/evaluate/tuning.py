"""Chooses a model's configuration on validation alone, within a time budget, by successive halving.

(Jamieson and Talwalkar 2016.) A model that is fitted at once is tried on few questions, the better third again on
more, and the best on all; a model with rounds is tried for a few rounds, and the best goes on until validation stops
rising. Trials are drawn at random and near the best so far, beginning with the model's default.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from models.recommenders.base import Catalogue, Histories, Recommender, Sequences, Training
from pipelines.evaluate.measure import value
from pipelines.evaluate.protocols import Questions, drawn

FEW, SOME, ALL = 2500, 6000, 12000
"""Validation questions of the three rungs."""
_MOST_TRIALS: Final = 60
_PATIENCE: Final = 4
_FIRST_RUNG: Final = 0.35  # of the time, for all arms together
_MOST_ARMS: Final = 4
_ROUNDS_PER_ARM: Final = 16  # that the time must allow before another configuration is begun
Say = Callable[[str], None]


@dataclass
class Trial:
    """One configuration: its value by rung or round, and what it cost."""

    config: dict[str, Any]
    rounds: int = 0
    values: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def best(self) -> float:
        return max(self.values, default=-1.0)

    @property
    def final(self) -> float:
        """The value that counts: of the best round, or on the most questions."""
        return self.best if self.rounds else self.values[-1]

    def as_dict(self) -> dict[str, Any]:
        found = {"config": self.config, "validation": round(self.final, 5), "seconds": round(self.seconds, 1)}
        return found | ({"rounds": self.rounds} if self.rounds else {"questions_tried": len(self.values)})


@dataclass
class Tuned:
    """The model without the validation's answers, the rounds it took, every trial, and what learning again costs."""

    model: Recommender
    rounds: int
    trials: list[Trial]
    chosen: Trial
    refit_seconds: float


@dataclass
class _Arm:
    """A configuration in training: the model as it is, and as it was when validation was highest."""

    trial: Trial
    model: Recommender
    best: Recommender
    best_rounds: int = 0


@dataclass(frozen=True)
class Tuner:
    """What all trials of one evaluation share."""

    training: Training
    questions: Questions
    mask: bool
    k: int
    seed: int
    say: Say = lambda _: None

    def tune(self, kind: type[Recommender], seconds: float) -> Tuned:
        """The best configuration that `seconds` allow; the default's is always finished."""
        rng = np.random.default_rng([self.seed, *kind.name.encode()])
        if kind.rounds:
            return self._by_rounds(kind, seconds, rng)
        if not kind.tuned_on or kind.tuned_on >= self.training.n_items:
            return self._at_once(kind, seconds, rng)
        small = self._at_popular(kind.tuned_on)._at_once(kind, seconds * 0.4, rng)
        model, start = kind(**small.chosen.config), time.monotonic()
        model.fit(self.training)
        took = time.monotonic() - start
        small.chosen.values.append(self._value(model, self._sample(ALL)))
        return Tuned(model, 0, small.trials, small.chosen, took)

    def _at_popular(self, most: int) -> Tuner:
        """The same task on the most popular items alone."""
        kept = np.sort(np.argsort(-self.training.counts, kind="stable")[:most])
        place = np.full(self.training.n_items, -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))

        def only(sequences: Sequences) -> Sequences:
            left = sequences.where(place[sequences.items] >= 0)
            return replace(left, items=place[left.items])

        relevant = only(self.questions.relevant)
        asked, histories = np.flatnonzero(relevant.lengths > 0), self.questions.histories
        questions = Questions(
            Histories(only(histories.sequences).take(asked), histories.users[asked]), relevant.take(asked)
        )
        catalogue = Catalogue(len(kept))
        training = replace(self.training, sequences=only(self.training.sequences), catalogue=catalogue)
        return replace(self, training=training, questions=questions)

    def _value(self, model: Recommender, questions: Questions) -> float:
        threads, n_items = self.training.threads, self.training.n_items
        found = value(model.score, questions, n_items, mask=self.mask, k=self.k, threads=threads)
        return float(found.mean())

    def _sample(self, most: int) -> Questions:
        return self.questions.take(drawn(len(self.questions), most, self.seed))

    def _at_once(self, kind: type[Recommender], seconds: float, rng: np.random.Generator) -> Tuned:
        began, trials = time.monotonic(), list[Trial]()
        few, some, everything = (self._sample(most) for most in (FEW, SOME, ALL))

        def attempt(trial: Trial, questions: Questions) -> Recommender:
            start = time.monotonic()
            model = kind(**trial.config)
            model.fit(self.training)
            trial.values = [*trial.values, self._value(model, questions)]
            trial.seconds += time.monotonic() - start
            return model

        def left() -> float:
            return seconds - (time.monotonic() - began)

        tried: set[str] = set()
        first: Recommender | None = None
        each = 0.0
        while len(trials) < _MOST_TRIALS:
            config = _next(kind, trials, tried, rng)
            # What a trial costs, thrice: itself, the last rungs, and learning the winner for the test.
            if config is None or (trials and left() < 3 * each + 0.4 * seconds):
                break
            tried.add(str(config))
            trials.append(Trial(config))
            model = attempt(trials[-1], few)
            if first is None:
                first, each = model, trials[0].seconds
            self.say(f"{kind.name}: trial {len(trials)}, best {max(t.best for t in trials):.4f}")
        if first is not None and len(trials) == 1:
            return Tuned(first, 0, trials, trials[0], each)
        ranked = sorted(trials, key=lambda t: -t.values[0])[: max(len(trials) // 3, 1)]
        for trial in ranked:
            if left() < 3 * each and trial is not ranked[0]:
                break
            attempt(trial, some)
        ranked = sorted(trials, key=lambda t: (-len(t.values), -t.values[-1]))
        chosen = ranked[0]
        return Tuned(attempt(chosen, everything), 0, trials, chosen, each)

    def _by_rounds(self, kind: type[Recommender], seconds: float, rng: np.random.Generator) -> Tuned:
        began, questions = time.monotonic(), self._sample(FEW)
        arms = [self._begin(kind, dict(kind.default))]
        self._advance(arms[0], questions)
        each = max(arms[0].trial.seconds, 1e-3)
        affordable = seconds / each
        many = int(np.clip(affordable // _ROUNDS_PER_ARM, 1, _MOST_ARMS))
        tried = {str(dict(kind.default))}
        while len(arms) < many and (config := _next(kind, [], tried, rng)) is not None:
            tried.add(str(config))
            arms.append(self._begin(kind, config))
        opening = int(np.clip(_FIRST_RUNG * affordable / many, 1, max(kind.rounds // 4, 1))) if many > 1 else 1
        for arm in arms:
            while arm.trial.rounds < opening:
                self._advance(arm, questions)
            self.say(f"{kind.name}: {opening} rounds of trial {arms.index(arm) + 1}, validation {arm.trial.best:.4f}")
        chosen = max(arms, key=lambda arm: arm.trial.best)
        trial = chosen.trial
        while trial.rounds < kind.rounds and trial.rounds - chosen.best_rounds < _PATIENCE:
            spent = time.monotonic() - began
            if spent + each + kind.refit_share * trial.rounds * each > seconds:
                break
            self._advance(chosen, questions)
            now = f"validation {trial.values[-1]:.4f}, best {trial.best:.4f}"
            self.say(f"{kind.name}: round {trial.rounds}, {now}")
        again = kind.refit_share * chosen.best_rounds * each
        return Tuned(chosen.best, chosen.best_rounds, [arm.trial for arm in arms], trial, again)

    def _begin(self, kind: type[Recommender], config: dict[str, Any]) -> _Arm:
        model = kind(**config)
        model.fit(self.training)
        return _Arm(Trial(config), model, model)

    def _advance(self, arm: _Arm, questions: Questions) -> None:
        start, trial = time.monotonic(), arm.trial
        trial.losses.append(arm.model.round())
        trial.rounds += 1
        trial.values.append(self._value(arm.model, questions))
        if trial.values[-1] >= trial.best:
            arm.best, arm.best_rounds = arm.model.snapshot(), trial.rounds
        trial.seconds += time.monotonic() - start


def _next(
    kind: type[Recommender], trials: list[Trial], tried: set[str], rng: np.random.Generator
) -> dict[str, Any] | None:
    """The default, then in turn one drawn at random and one that differs from the best in one or two options."""
    if not tried:
        return dict(kind.default)
    for _ in range(50):
        if trials and len(trials) % 3:
            config = dict(max(trials, key=lambda t: t.values[0]).config)
            changed = rng.choice(list(kind.space), size=min(int(rng.integers(1, 3)), len(kind.space)), replace=False)
        else:
            config, changed = dict(kind.default), np.array(list(kind.space))
        for name in changed:
            config[str(name)] = kind.space[str(name)][int(rng.integers(len(kind.space[str(name)])))]
        if str(config) not in tried:
            return config
    return None
