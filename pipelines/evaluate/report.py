"""From what was measured to the report: rows with intervals, paired differences, and the audit of every treatment."""

from __future__ import annotations

import resource
import sys
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from adapters.provenance import stamp
from models.bootstrap import intervals
from models.metrics import list_diversity, novelty
from models.recommenders.base import Floats, Ints
from models.recommenders.content import unit, vectors
from pipelines.evaluate.compare import BLEND, Compared
from pipelines.evaluate.measure import Judged, table
from pipelines.evaluate.protocols import Questions

RANKED: Final = ("recall", "ndcg", "map", "mrr", "hit_rate")
LEAST_USERS: Final = 20
FEW: Final = 5
"""A user known by at most so many items is cold; so is an item that was touched at most so often."""
_DIM: Final = 32


def report(found: Compared, command: str, seconds: float) -> dict[str, Any]:
    """The whole report as plain data."""
    options, facts = found.options, dict(found.data.notes)
    slices = _slices(found)
    asked = len(found.asked)
    return {
        "title": f"Retrieval, {options.protocol.replace('_', ' ')}, {asked:,} users, whole catalogue of "
                 f"{found.data.catalogue.n_items:,} items",
        "command": command, **stamp(), "protocol": options.protocol, "seed": options.seed,
        "data_version": found.data.version,
        "budget_seconds": options.budget, "seconds": round(seconds, 1), "audit": _audit(found, facts),
        "rows": [row for name, part in slices.items() for row in _rows(found, name, *part)],
        "minus_blend": _against(found), "blend": None if found.choice is None else found.choice.as_dict(),
        "tuning": {name: [trial.as_dict() for trial in tuned.trials] for name, tuned in found.tuned.items()},
        "skipped": found.skipped,
    }  # fmt: skip


def _slices(found: Compared) -> dict[str, tuple[NDArray[np.bool_], Questions]]:
    """Slice -> which relevant entries count, and the questions that are left with any."""
    questions = found.asked
    relevant = questions.relevant
    known = questions.histories.sequences.lengths[relevant.owner]
    learned = np.bincount(found.learned.items, minlength=found.data.catalogue.n_items)[relevant.items]
    entries = {
        "all": np.ones(len(known), dtype=bool), "cold users": known <= FEW, "warm users": known > FEW,
        "cold items": learned <= FEW, "new items": learned == 0,
    }  # fmt: skip
    found_ = {}
    for name, keep in entries.items():
        rows = np.unique(relevant.owner[keep])
        if len(rows) >= LEAST_USERS:
            found_[name] = (keep, Questions(questions.take(rows).histories, relevant.where(keep).take(rows)))
    return found_


def _rows(found: Compared, name: str, keep: NDArray[np.bool_], questions: Questions) -> list[dict[str, Any]]:
    ks, columns = found.options.ks, dict[str, NDArray[np.float64]]()
    rows = np.unique(found.asked.relevant.owner[keep])
    counts = np.bincount(found.learned.items, minlength=found.data.catalogue.n_items)
    space, learners = item_space(found), int(np.sum(found.learned.lengths > 0))
    for model, judged in found.judged.items():
        for metric, values in table(judged.ahead[keep], questions, [f"{m}@{k}" for k in ks for m in RANKED]).items():
            columns[f"{model} {metric}"] = values
        for k in ks:
            lists = judged.lists[rows, :k]
            columns[f"{model} intra_list_diversity@{k}"] = list_diversity(space, lists)
            columns[f"{model} novelty@{k}"] = novelty(lists, counts, learners)
    measured = {column: one.as_dict() for column, one in intervals(columns, seed=found.options.seed).items()}
    return [
        {
            "model": model, "slice": name, "users": len(rows),
            "metrics": {c.split(" ", 1)[1]: v for c, v in measured.items() if c.split(" ", 1)[0] == model},
            "coverage": {f"coverage@{k}": _coverage(judged.lists[rows, :k], len(counts)) for k in ks},
            "fit_seconds": round(found.fit_seconds[model], 2),
            "tune_seconds": round(found.tune_seconds.get(model, 0.0), 2),
        }
        for model, judged in found.judged.items()
    ]  # fmt: skip


def _coverage(lists: Ints, catalogue: int) -> float:
    return round(len(np.unique(lists)) / catalogue, 5)


def _against(found: Compared) -> dict[str, dict[str, float]]:
    """Paired difference to the blend at the first k, users resampled together: negative where the blend is better."""
    if BLEND not in found.judged:
        return {}
    name, asked = f"ndcg@{found.options.ks[0]}", found.asked
    values = {m: table(judged.ahead, asked, [name])[name] for m, judged in found.judged.items()}
    differences = {m: one - values[BLEND] for m, one in values.items() if m != BLEND}
    return {m: one.as_dict() for m, one in intervals(differences, seed=found.options.seed).items()}


def item_space(found: Compared) -> Floats:
    """L2-normalised item vectors in which a list's diversity is measured: of content, else of who touched the items."""
    catalogue, learn = found.data.catalogue, found.learned
    if catalogue.described:
        return vectors(catalogue, _DIM, found.options.seed)
    touched: sparse.csr_matrix = learn.matrix(catalogue.n_items)
    dim = min(_DIM, min(touched.shape) - 1)
    _, values, right = svds(touched, k=dim, random_state=found.options.seed)
    return unit(np.asarray((right * values[:, None]).T, dtype=np.float32))


def _audit(found: Compared, facts: dict[str, Any]) -> dict[str, Any]:
    options, parts, asked = found.options, found.parts, found.asked
    k = options.ks[0]

    some = asked.take(found.audited)
    reported = _reported(found, some, k)

    def ndcg(kind: str) -> dict[str, float]:
        return {m: _mean(getattr(judged, kind), some, k) for m, judged in found.judged.items()}

    # The blend also hides seen items from its members' ranks: without that it would be another model.
    otherwise = {m: value for m, value in ndcg("otherwise").items() if m != BLEND}
    learned = np.bincount(found.learned.items, minlength=found.data.catalogue.n_items)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    audit = {
        "protocol": parts.facts, "data": facts,
        "users": {"asked_in_test": len(asked), "could_be_asked": len(parts.test.questions),
                  "asked_in_validation": len(parts.validation.questions),
                  "learned_from": int(np.sum(found.learned.lengths > 0))},
        "items": {"in_catalogue": len(learned), "never_learned": int(np.sum(learned == 0)),
                  "relevant_never_learned": int(np.sum(learned[asked.relevant.items] == 0))},
        "relevant_per_user": round(len(asked.relevant.items) / len(asked), 3),
        "candidates": "the whole catalogue, no sampled negatives",
        "users_compared": {"number": len(some), "rule": "drawn at random; all treatments below are compared on them"},
        "ties": {"treatment": "pessimistic: behind every other item with the same score",
                 f"ndcg@{k}_as_reported": reported, f"ndcg@{k}_if_optimistic": ndcg("optimistic")},
        "seen_items": {
            "treatment": "what a user has touched neither competes nor counts" if found.mask
            else "what a user has touched competes and counts like any item",
            "chosen_by": f"--seen {options.seen}; auto masks unless over 1 % of validation's answers are repeats",
            "repeats_in_validation": round(found.repeats, 5), f"ndcg@{k}_as_reported": reported,
            f"ndcg@{k}_if_not_masked" if found.mask else f"ndcg@{k}_if_masked": otherwise,
        },
        "validation_transition": {
            "treatment": parts.facts["validation_transition"] if found.options.refit
            else "no refit: the models of validation answer the test, they never learn the validation items",
            f"ndcg@{k}_as_reported": reported,
            **_compared(f"ndcg@{k}_if_in_histories_alone", found.unlearned, some, k),
            **_compared(f"ndcg@{k}_if_nowhere", found.unknown, some, k),
        },
        "slices": {"cold users": f"known by at most {FEW} items",
                   "cold items": f"touched at most {FEW} times, 0 included",
                   "new items": "never touched in what the models learn from",
                   "rule": "only relevant items of the slice count, the others neither compete nor count"},
        "tuning": f"on validation alone, NDCG@{k}, successive halving within the budget: more time, more trials",
        "diversity": "cosine in " + ("the space of titles, categories and prices" if found.data.catalogue.described
                                     else "the space of an SVD of who touched what"),
        "bootstrap": "1,000 draws of users, the same draws for every model",
        "peak_memory_gib": round(peak, 2), "memory_limit_gib": options.memory_gib, "threads": options.threads,
    }  # fmt: skip
    return audit


def _mean(ahead: NDArray[np.float64], questions: Questions, k: int) -> float:
    return round(float(table(ahead, questions, [f"ndcg@{k}"])[f"ndcg@{k}"].mean()), 5)


def _reported(found: Compared, some: Questions, k: int) -> dict[str, float]:
    """What the report's rows say, on the audited users alone."""
    keep = np.isin(found.asked.relevant.owner, found.audited)
    return {m: _mean(judged.ahead[keep], some, k) for m, judged in found.judged.items()}


def _compared(name: str, judged: dict[str, Judged], some: Questions, k: int) -> dict[str, dict[str, float]]:
    return {name: {m: _mean(one.ahead, some, k) for m, one in judged.items()}} if judged else {}
