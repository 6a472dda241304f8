"""Compares retrieval models on one dataset under one protocol: tune on validation, learn again, test once, report."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import numpy as np

from adapters.errors import BadInput
from models.recommenders.base import Floats, Histories, Ints, Recommender, Sequences, Training
from models.recommenders.family import MODELS
from pipelines.evaluate.blending import MOST_QUESTIONS, Choice, choose
from pipelines.evaluate.dataset import Dataset
from pipelines.evaluate.measure import Judged, judge
from pipelines.evaluate.progress import Progress
from pipelines.evaluate.protocols import Part, Questions, Split, drawn, seen, split
from pipelines.evaluate.tuning import Tuned, Tuner

BLEND: Final = "blend"
AUDITED: Final = 3000
"""So many test users, drawn at random, are also judged under the opposites of the treatments that the audit names."""
_SECONDS_PER_CELL: Final = 15e-9  # scoring and ranking one item for a user by one model; blending it as much again
_MOST_FOR_JUDGING: Final = 0.3
_FEW_REPEATS: Final = 0.01


@dataclass(frozen=True)
class Options:
    """What is asked for; checks itself."""

    protocol: str
    ks: tuple[int, ...] = (10, 20)
    models: tuple[str, ...] = ("all",)
    budget: float = 600.0
    seen: str = "auto"
    refit: bool = True
    seed: int = 7
    threads: int = 2
    memory_gib: float = 6.0

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or max(self.ks) > 1000:
            raise BadInput(f"--k {self.ks}: numbers from 1 to 1000 are allowed, e.g. --k 10,20", field="k")
        if self.budget < 1:
            raise BadInput(f"--budget {self.budget}: seconds from 1 are allowed; 600 is the default", field="budget")
        if unknown := set(self.models) - {"all", BLEND, *MODELS}:
            allowed = ", ".join(("all", BLEND, *MODELS))
            raise BadInput(f"--models {min(unknown)}: there is no such model; allowed: {allowed}", field="models")

    @property
    def names(self) -> list[str]:
        chosen = set(MODELS) if "all" in self.models or set(self.models) == {BLEND} else set(self.models)
        return [name for name in MODELS if name in chosen]

    @property
    def blended(self) -> bool:
        return bool({"all", BLEND} & set(self.models)) and len(self.names) > 1


@dataclass
class Compared:
    """Everything that the report is made from."""

    options: Options
    data: Dataset
    parts: Split
    mask: bool
    repeats: float
    tuned: dict[str, Tuned] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    tune_seconds: dict[str, float] = field(default_factory=dict)
    fit_seconds: dict[str, float] = field(default_factory=dict)
    choice: Choice | None = None
    judged: dict[str, Judged] = field(default_factory=dict)
    unlearned: dict[str, Judged] = field(default_factory=dict)
    """The audited users asked of models that never learned the validation items; histories hold them."""
    unknown: dict[str, Judged] = field(default_factory=dict)
    """The same where histories lack them too."""
    rows: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Whom the test asks: rows of its questions."""
    audited: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Who of them is audited: rows of `asked`, ascending."""

    @property
    def asked(self) -> Questions:
        return self.parts.test.questions.take(self.rows)

    @property
    def learned(self) -> Sequences:
        """What the models that answer the test have learned."""
        return (self.parts.test if self.options.refit else self.parts.validation).learn

    @property
    def to_refit(self) -> float:
        """Seconds that learning the tuned models again will take."""
        return sum(tuned.refit_seconds for tuned in self.tuned.values()) if self.options.refit else 0.0


def compare(data: Dataset, options: Options, progress: Progress) -> Compared:
    """Run the protocol within the budget of seconds. Raises BadInput if the data or the options do not allow it."""
    began = time.monotonic()
    parts = split(options.protocol, data, options.seed)
    repeats = float(seen(parts.validation.questions).mean())
    mask = repeats <= _FEW_REPEATS if options.seen == "auto" else options.seen == "mask"
    found = Compared(options, data, parts, mask, repeats)
    kinds = _suitable(found, progress)
    found.rows, judging = _affordable(found, len(kinds))
    found.audited = drawn(len(found.rows), AUDITED, options.seed)
    _tune(found, kinds, began + options.budget - judging, progress)
    if options.blended and len(found.tuned) > 1:
        _choose_blend(found, progress)
    _audit_validation(found)
    final = _refit(found, progress) if options.refit else _as_tuned(found)
    _judge(found, final, progress)
    return found


def _training(found: Compared, part: Part) -> Training:
    o = found.options
    return Training(part.learn, found.data.catalogue, seed=o.seed, threads=o.threads, memory_gib=o.memory_gib)


def _suitable(found: Compared, progress: Progress) -> dict[str, type[Recommender]]:
    training = _training(found, found.parts.validation)
    kinds = {}
    for name in found.options.names:
        if why := MODELS[name].suits(training):
            found.skipped[name] = why
            progress.say(f"{name}: left out, {why}")
        else:
            kinds[name] = MODELS[name]
    if not kinds:
        asked = ",".join(found.options.models)
        raise BadInput(f"--models {asked}: none suits these data: {found.skipped}", field="models")
    return kinds


def _affordable(found: Compared, models: int) -> tuple[Ints, float]:
    """All test users, or as many as a share of the budget can judge; and the seconds that judging and blending take."""
    options = found.options
    each = found.data.catalogue.n_items * models * (1 + options.blended) * _SECONDS_PER_CELL
    most = max(int(_MOST_FOR_JUDGING * options.budget / each), 100)
    rows = drawn(len(found.parts.test.questions), most, options.seed)
    blending = 2 * min(len(found.parts.validation.questions), MOST_QUESTIONS) if options.blended else 0
    auditing = 2 * min(len(rows), AUDITED)
    return rows, min((len(rows) + blending + auditing) * each, options.budget / 2)


def _tune(found: Compared, kinds: dict[str, type[Recommender]], until: float, progress: Progress) -> None:
    tuner = Tuner(
        _training(found, found.parts.validation), found.parts.validation.questions, found.mask, found.options.ks[0],
        found.options.seed,
    )  # fmt: skip
    waiting = dict(kinds)
    while waiting:
        name, kind = next(iter(waiting.items()))
        share = kind.share / sum(one.share for one in waiting.values())
        seconds = max(until - time.monotonic() - found.to_refit, 1.0) * share
        with progress.stage(f"tuning {name}", seconds) as say:
            start = time.monotonic()
            found.tuned[name] = replace(tuner, say=say).tune(kind, seconds)
            found.tune_seconds[name] = time.monotonic() - start
        del waiting[name]
        best, took = found.tuned[name].chosen, found.tune_seconds[name]
        trials = f"{len(found.tuned[name].trials)} trials in {took:.0f} s"
        progress.say(f"{name}: validation NDCG@{found.options.ks[0]} {best.final:.4f}, {trials}, {best.config}")


def _choose_blend(found: Compared, progress: Progress) -> None:
    with progress.stage("learning the blend", 30):
        found.choice = choose(
            {name: tuned.model for name, tuned in found.tuned.items()}, found.parts.validation.questions,
            found.data.catalogue.n_items, mask=found.mask, k=found.options.ks[0], seed=found.options.seed,
            threads=found.options.threads,
        )  # fmt: skip
    progress.say(f"blend: {found.choice.as_dict()}")


def _audit_validation(found: Compared) -> None:
    """The audited test users, asked of models that never learned the validation items."""
    models = {name: tuned.model for name, tuned in found.tuned.items()}

    def ask(questions: Questions) -> dict[str, Judged]:
        return judge(
            partial(_answers, found, models), questions, found.data.catalogue.n_items, mask=found.mask, k=0,
            threads=found.options.threads,
        )  # fmt: skip

    asked = found.asked.take(found.audited)
    if found.options.refit:  # without it, the report's own figures are these
        found.unlearned = ask(asked)
    if found.options.protocol == "leave_one_out":
        before = found.parts.validation.questions.take(found.rows[found.audited])
        found.unknown = ask(Questions(before.histories, asked.relevant))


def _refit(found: Compared, progress: Progress) -> dict[str, Recommender]:
    """Every model again, now with the validation items."""
    training, final = _training(found, found.parts.test), dict[str, Recommender]()
    for name, tuned in found.tuned.items():
        with progress.stage(f"learning {name} for the test", tuned.refit_seconds):
            start = time.monotonic()
            final[name] = tuned.model.refit(training, tuned.rounds)
            found.fit_seconds[name] = time.monotonic() - start
        tuned.model = final[name]  # the one before is no longer needed, and may be large
    return final


def _as_tuned(found: Compared) -> dict[str, Recommender]:
    """The models as validation left them; what learning them took is what the tuner measured."""
    found.fit_seconds = {name: tuned.refit_seconds for name, tuned in found.tuned.items()}
    return {name: tuned.model for name, tuned in found.tuned.items()}


def _answers(found: Compared, models: dict[str, Recommender], histories: Histories) -> dict[str, Floats]:
    """Each model's scores, and their blend's."""
    scores = {name: model.score(histories) for name, model in models.items()}
    if found.choice is not None:
        scores[BLEND] = found.choice.combine(scores, histories, mask=found.mask)
    return scores


def _judge(found: Compared, models: dict[str, Recommender], progress: Progress) -> None:
    with progress.stage("ranking the catalogue for every test user", len(found.asked)) as say:
        done, total = 0, len(found.asked)

        def tick(count: int) -> None:
            nonlocal done
            done += count
            say(f"{done:,} of {total:,} users", done)

        found.judged = judge(
            partial(_answers, found, models), found.asked, found.data.catalogue.n_items, mask=found.mask,
            k=max(found.options.ks), threads=found.options.threads, audited=found.audited, tick=tick,
        )  # fmt: skip
    if found.choice is not None:
        found.fit_seconds[BLEND] = sum(found.fit_seconds[name] for name in found.choice.members)


def names_of(text: str) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers_of(text: str) -> tuple[int, ...]:
    """Comma-separated cut-offs. Raises BadInput for what is no whole number."""
    parts = names_of(text)
    if not all(part.isdigit() for part in parts):
        raise BadInput(f"--k {text}: whole numbers separated by commas are allowed, e.g. --k 10,20", field="k")
    return tuple(sorted({int(part) for part in parts}))
