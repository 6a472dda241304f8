"""The protocols: what is learned from, whom is asked, and what counts as right, for validation and for test.

leave_one_out           a user's last item is the test, the one before it validation
temporal                the newest tenth of the interactions is the test, the tenth before it validation
strong_generalisation   a tenth of the users is the test, another validation; the last fifth of what they touched counts
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from adapters.errors import BadInput
from models.recommenders.base import Histories, Ints, Sequences
from pipelines.evaluate.dataset import Dataset

LEAST_ASKED: Final = 20
_SHARE: Final = 0.1
_HELD_BACK: Final = 0.2


@dataclass(frozen=True)
class Questions:
    """What users had touched, and what they touched then: `relevant` holds one sequence of distinct items for each."""

    histories: Histories
    relevant: Sequences

    def __len__(self) -> int:
        return len(self.histories)

    def take(self, chosen: Ints) -> Questions:
        asked = Histories(self.histories.sequences.take(chosen), self.histories.users[chosen])
        return Questions(asked, self.relevant.take(chosen))


@dataclass(frozen=True)
class Part:
    """Sequences to learn from, and the questions about what came after."""

    learn: Sequences
    questions: Questions


@dataclass(frozen=True)
class Split:
    """Tuning sees `validation` alone; the test's models learn `test.learn`, the validation items included."""

    validation: Part
    test: Part
    facts: dict[str, str | int]


def split(name: str, data: Dataset, seed: int) -> Split:
    """Split by protocol `name`. Raises BadInput if the data do not allow it."""
    found = PROTOCOLS[name](data, seed)
    for part, asked in (("validation", found.validation), ("test", found.test)):
        if len(asked.questions) < LEAST_ASKED:
            raise BadInput(
                f"{name}: {len(asked.questions)} users can be asked in the {part}; at least {LEAST_ASKED} are needed. "
                "Give more data, or another --protocol", field="protocol",
            )  # fmt: skip
    return found


def leave_one_out(data: Dataset, seed: int) -> Split:
    """Users with at least three interactions are asked; the others are learned from alone."""
    sequences = data.sequences
    asked = np.flatnonzero(sequences.lengths >= 3)
    long = np.repeat(sequences.lengths >= 3, sequences.lengths)

    def part(held_back: int) -> Part:
        learn = sequences.where(~long | (sequences.from_end >= held_back))
        target = sequences.where(long & (sequences.from_end == held_back - 1))
        return Part(learn, Questions(Histories(learn.take(asked), asked), target.take(asked)))

    facts: dict[str, str | int] = {
        "rule": "each user's last interaction is the test, the one before it validation, the whole catalogue is ranked",
        "validation_transition": "models of the test learn the validation items, and these are part of the histories",
        "users_too_short": int(len(sequences) - len(asked)),
    }  # fmt: skip
    return Split(part(2), part(1), facts)


def temporal(data: Dataset, seed: int) -> Split:
    """Everybody who is active in a window is asked once, at its beginning; new users have an empty history."""
    times = data.sequences.time_ms
    if times is None:
        raise BadInput(
            "temporal: a text file of sequences has no times; use --protocol leave_one_out, or give a folder with "
            "events that have a time (docs/data.md)", field="protocol",
        )  # fmt: skip
    cuts = np.quantile(times, [1 - 2 * _SHARE, 1 - _SHARE]).astype(np.int64)

    def part(since: int, until: int) -> Part:
        learn = data.sequences.where(times < since)
        later = _distinct(data.sequences.where((times >= since) & (times < until)), data.catalogue.n_items)
        asked = np.flatnonzero(later.lengths > 0)
        known = np.where(learn.lengths[asked] > 0, asked, -1)
        return Part(learn, Questions(Histories(learn.take(asked), known), later.take(asked)))

    facts: dict[str, str | int] = {
        "rule": "the newest tenth of all interactions is the test, the tenth before it validation; what a user touches "
                "in a window is relevant, asked once at its beginning",
        "validation_transition": "models of the test learn the validation window, and it is part of the histories",
        "validation_from_ms": int(cuts[0]), "test_from_ms": int(cuts[1]),
    }  # fmt: skip
    return Split(part(int(cuts[0]), int(cuts[1])), part(int(cuts[1]), int(times.max()) + 1), facts)


def strong_generalisation(data: Dataset, seed: int) -> Split:
    """Users whom no model has seen, known by the first four fifths of what they touched."""
    sequences = data.sequences
    order = np.random.default_rng(seed).permutation(np.flatnonzero(sequences.lengths >= 5))
    each = int(len(order) * _SHARE)
    test, validation = order[:each], order[each : 2 * each]

    def part(without: Ints, asked: Ints) -> Part:
        # Everybody keeps the row; who is held back has nothing in it.
        held = np.isin(np.arange(len(sequences)), without)
        learn = sequences.where(~np.repeat(held, sequences.lengths))
        mine = sequences.take(asked)
        back = np.repeat(np.maximum((mine.lengths * _HELD_BACK).astype(int), 1), mine.lengths)
        later = _distinct(mine.where(mine.from_end < back), data.catalogue.n_items)
        unknown = np.full(len(asked), -1, dtype=np.int64)
        return Part(learn, Questions(Histories(mine.where(mine.from_end >= back), unknown), later))

    facts: dict[str, str | int] = {
        "rule": "a tenth of the users with at least five interactions is the test, another tenth validation; the last "
                "fifth of what they touched is relevant, the rest is their history (in order of time, not at random)",
        "validation_transition": "models of the test learn the validation users in full; no model learns test users",
    }  # fmt: skip
    return Split(part(np.concatenate([test, validation]), validation), part(test, test), facts)


def _distinct(sequences: Sequences, n_items: int) -> Sequences:
    """Each sequence without repetitions."""
    keep = np.zeros(len(sequences.items), dtype=bool)
    keep[np.unique(sequences.owner * n_items + sequences.items, return_index=True)[1]] = True
    return sequences.where(keep)


def drawn(of: int, most: int, seed: int) -> Ints:
    """All of so many rows, or `most` of them drawn at random, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(of)[:most])


def seen(questions: Questions) -> NDArray[np.bool_]:
    """Whether each relevant entry is in its user's history already, bool [relevant entries]."""
    past, relevant = questions.histories.sequences, questions.relevant
    width = int(max(past.items.max(initial=0), relevant.items.max(initial=0))) + 1
    return np.isin(relevant.owner * width + relevant.items, past.owner * width + past.items)


PROTOCOLS: Final[Mapping[str, Callable[[Dataset, int], Split]]] = {
    "leave_one_out": leave_one_out, "temporal": temporal, "strong_generalisation": strong_generalisation,
}  # fmt: skip
