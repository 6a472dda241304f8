"""One window against one baseline: all detectors measure, the declaration decides, p-values are adjusted together.

Data drift: the inputs moved (features, who asks). Prediction drift: the scores moved. Label drift: what is shown is
clicked more or less than it was. Concept drift: the same scores in the same places are clicked more or less than the
baseline's own calibration promises; a move of the inputs alone does not look like that. Operations: volume, latency.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from models.calibration import ClickModel
from models.drift.base import LEAST, Level, Measurement, Rate, Thresholds
from models.drift.baseline import Baseline
from models.drift.columns import Column, category
from models.drift.family import COMPARISONS, RATES, SEQUENTIAL
from models.drift.significance import holm
from models.drift.traffic import Traffic
from models.drift.watched import (
    BUDGET,
    CATEGORIES,
    CLICKED,
    CONFIDENCE,
    EVENTS,
    IN_SLICES,
    LATENCY,
    SCORE,
    WATCHED,
    Watch,
)  # fmt: skip

Kind = Literal["data", "label", "concept", "prediction", "operations"]
KINDS: Final[tuple[Kind, ...]] = ("data", "label", "concept", "prediction", "operations")
LEAST_IN_SLICE: Final = 100  # requests; in a smaller slice one shopper is a trend
FINE: Final = 256


@dataclass(frozen=True)
class Finding:
    """What one detector says of one subject (a feature, a text, a slice, the traffic).

    `decides` is false where the declaration leaves the decision to another method; `p_value` is adjusted for all
    questions that decide. The level of a finding that does not decide is what it would be, for the reader.
    """

    kind: Kind
    subject: str
    detector: str
    level: Level
    decides: bool
    value: float | None = None
    p_value: float | None = None
    detail: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.subject, self.detector


@dataclass(frozen=True)
class Question:
    """What one detector measured of one subject, before the judgement."""

    kind: Kind
    subject: str
    detector: str
    thresholds: Thresholds
    decides: bool
    found: Measurement | None


def inspect(reference: Baseline, traffic: Traffic, *, same_hour: bool = False, budget: float = BUDGET) -> list[Finding]:
    """Every finding about `traffic`. `same_hour`: the reference is of the same hour of the week, so that the windows of
    counts are judged too. An empty window gives findings of insufficient data, except for its volume."""
    return judge(questions(reference, traffic, same_hour=same_hour), budget)


def questions(reference: Baseline, traffic: Traffic, *, same_hour: bool = False) -> list[Question]:
    """Everything that is measured, not yet judged."""
    current = traffic.baseline(grid=FINE)
    return [
        *_columns(reference, current, same_hour), *_texts(reference, current),
        *_scores(reference, current, same_hour), *_traffic(reference, current, traffic, same_hour),
        *_outcomes(reference, traffic), *_choices(reference, current),
    ]  # fmt: skip


def judge(asked: Sequence[Question], budget: float = BUDGET) -> list[Finding]:
    """Levels: beyond the threshold, and not by accident once all deciding questions are counted."""
    counted = [i for i, a in enumerate(asked) if a.decides and a.found is not None and a.found.p_value is not None]
    adjusted = dict(zip(counted, holm([_p(asked[i]) for i in counted]), strict=True))
    findings = []
    for i, question in enumerate(asked):
        found = question.found
        finding = Finding(question.kind, question.subject, question.detector, Level.INSUFFICIENT_DATA, question.decides)
        if found is not None:
            p_value = adjusted.get(i, found.p_value)
            likely = p_value is None or p_value < budget
            level = question.thresholds.level(found.value) if likely else Level.HEALTHY
            finding = replace(finding, level=level, value=found.value, p_value=p_value, detail=found.detail)
        findings.append(finding)
    return findings


def _p(question: Question) -> float:
    return 1.0 if question.found is None or question.found.p_value is None else question.found.p_value


def _compare(
    kind: Kind, subject: str, reference: Column | None, current: Column | None, watch: Watch, decides: bool
) -> Iterator[Question]:
    """All comparisons of one column. A column that either side lacks is a question without an answer."""
    for name, detector in COMPARISONS.items():
        if name == "tail_shift" and watch.method != name:
            continue
        if name == "new_categories" and not (reference and reference.categorical):
            continue
        thresholds = watch.thresholds if name == watch.method else detector.thresholds
        found = None if reference is None or current is None else detector.measure(reference, current)
        yield Question(kind, subject, name, thresholds, _decides(name, watch, decides), found)


def _decides(detector: str, watch: Watch, judged: bool) -> bool:
    """Nulls and new values always; the declared method and the range where the column is judged at all."""
    return detector in ("null_share", "new_categories") or (judged and detector in (watch.method, "out_of_range"))


def _columns(reference: Baseline, current: Baseline, same_hour: bool) -> Iterator[Question]:
    same_encoder = _same(reference, current, "two_tower_version")
    for name, watch in WATCHED.items():
        decides = same_hour or not watch.seasonal
        if watch.encoder and not same_encoder:
            continue
        yield from _compare("data", name, reference.columns.get(name), current.columns.get(name), watch, decides)
    for name, watch in EVENTS.items():
        if name in reference.columns:
            now = current.columns.get(name, Column(name, 0, 0, 0.0))
            yield from _compare("data", name, reference.columns[name], now, watch, True)


def _texts(reference: Baseline, current: Baseline) -> Iterator[Question]:
    for name, watch in CATEGORIES.items():
        if name in reference.categories:
            now = current.categories.get(name, category(name, ()))
            yield from _compare("data", f"asked from {name}", reference.categories[name], now, watch, True)


def _scores(reference: Baseline, current: Baseline, same_hour: bool) -> Iterator[Question]:
    """Scores of another model are another quantity: nothing is said about them."""
    same = _same(reference, current, "ranker_version")
    pairs: list[tuple[str, Column | None, Column | None, Watch]] = [("score", reference.scores, current.scores, SCORE)]
    pairs.append(("confidence", reference.columns.get("confidence"), current.columns.get("confidence"), CONFIDENCE))
    for name, before, now, watch in pairs:
        decides = same_hour or not watch.seasonal
        yield from _compare("prediction", name, before if same else None, now, watch, decides)
    for name, part in current.slices.items():
        if name in reference.slices and min(part.requests, reference.slices[name].requests) >= LEAST_IN_SLICE:
            earlier = reference.slices[name].scores if same else None
            found = None if earlier is None else COMPARISONS[SCORE.method].measure(earlier, part.scores)
            yield Question("prediction", f"score where {name}", SCORE.method, SCORE.thresholds, True, found)


def _traffic(reference: Baseline, current: Baseline, traffic: Traffic, same_hour: bool) -> Iterator[Question]:
    """Traffic breathes with the hour: against another hour only silence is judged, against the same one its size."""
    before, now = {"requests": reference.asked, **reference.counts}, {"requests": traffic.asked, **traffic.counts}
    for name in before:
        for detector in (RATES["volume"], RATES["silence"]):
            rates = Rate(before[name], reference.seconds), Rate(now.get(name, 0), traffic.seconds)
            decides = same_hour or detector.name == "silence"
            found = detector.measure(*rates)
            yield Question("operations", name, detector.name, detector.thresholds, decides, found)
    yield from _latency(reference, current)


def _latency(reference: Baseline, current: Baseline) -> Iterator[Question]:
    before, now = reference.columns.get("total_ms"), current.columns.get("total_ms")
    if before is not None and now is not None:
        slow = COMPARISONS[LATENCY.method].measure(before, now)
        yield Question("operations", "latency", LATENCY.method, LATENCY.thresholds, True, slow)


def _outcomes(reference: Baseline, traffic: Traffic) -> Iterator[Question]:
    """Label and concept drift, of all traffic and of each slice. A training baseline has no clicks of its own."""
    parts = {"": traffic, **{f" where {name}": part for name, part in traffic.slices().items()}}
    same = reference.meta.get("ranker_version") in (None, traffic.meta.get("ranker_version"))
    model = reference.click_model if same and reference.clicks is not None else None
    for where, part in parts.items():
        before = reference.clicks
        if where:
            earlier = reference.slices.get(where.removeprefix(" where "))
            if earlier is None or min(earlier.requests, part.requests) < LEAST_IN_SLICE:
                continue
            before = earlier.clicks
        label, calibration = RATES["label_share"], RATES["calibration_error"]
        found = None if before is None else label.measure(before, part.clicks())
        rule = IN_SLICES if where else None
        yield Question("label", f"clicks{where}", label.name, rule or label.thresholds, True, found)
        error = None
        if model is not None and before is not None:
            error = calibration.measure(Rate(before.hits, before.hits, before.spread), part.calibration(model))
        subject = f"clicks given score{where}"
        yield Question("concept", subject, calibration.name, rule or calibration.thresholds, True, error)
        moved = not where and error is not None and error.value >= calibration.thresholds.warn
        if moved and model is not None:
            yield from _sequence(traffic, model)


def _choices(reference: Baseline, current: Baseline) -> Iterator[Question]:
    for name, watch in CLICKED.items():
        if name in reference.categories:
            now = current.categories.get(name, category(name, ()))
            yield from _compare("label", name, reference.categories[name], now, watch, True)


def _sequence(traffic: Traffic, model: ClickModel) -> Iterator[Question]:
    """Where in the window the stream of surprises changed; for the reader, once the calibration moved."""
    surprises = traffic.surprises(model)
    for name in ("adwin", "page_hinkley"):
        detector = SEQUENTIAL[name]()
        at = next((i for i, value in enumerate(surprises) if detector.update(float(value))), None)
        found = Measurement(0.0 if at is None else 1.0, None, "" if at is None else f"after {at + 1} requests")
        enough = found if len(surprises) >= LEAST else None
        yield Question("concept", "surprise", name, Thresholds(1.0, 1.0), False, enough)


def _same(reference: Baseline, current: Baseline, version: str) -> bool:
    """Whether both are of one model version, or the reference does not say of which it is."""
    return reference.meta.get(version) in (None, current.meta.get(version))
