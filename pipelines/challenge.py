"""The gate between a challenger and traffic: its bundles against the champion's, on requests that neither learned from.

Margins: NDCG@10 may be lower by chance only (the paired bootstrap interval reaches 0) and by at most LOSS of the
champion's; in no slice by more than SLICE_LOSS unless that may be chance; promised click probabilities miss by at most
MORE_ERROR more than the champion's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.bundles import Bundle
from adapters.errors import MinimartError
from models import onnx_export
from models.bootstrap import paired
from models.calibration import ClickModel, expected_calibration_error
from models.drift.baseline import Baseline, shown_rows
from models.ranker import RankingRows
from models.ranking_features import DEVICES, FEATURES, FEATURES_SHA
from pipelines.gate import MOST_DIFFERENCE, Check

LOSS: Final = 0.05
SLICE_LOSS: Final = 0.15
SLICE_LEAST: Final = 50
MORE_ERROR: Final = 0.03
SLOWER: Final = 2.0
SLOWER_MS: Final = 3.0
OLDER_MS: Final = 36 * 3_600_000
"""A challenger whose data ended so much earlier than the champion's is stale."""
_LATENCY_ROWS: Final = 200
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """Rows of requests that neither model learned from, and who they were."""

    rows: RankingRows

    @property
    def slices(self) -> dict[str, NDArray[np.bool_]]:
        """Requests [G] by slice, from the features of each request's first row."""
        first = np.cumsum(self.rows.groups) - self.rows.groups
        device = self.rows.features[first, FEATURES.index("device")]
        clicks = np.nan_to_num(self.rows.features[first, FEATURES.index("user_clicks_count_7d")])
        found = {f"device {name}": device == code for code, name in enumerate(DEVICES)}
        return found | {"returning shoppers": clicks > 0, "new shoppers": clicks <= 0}


def judge(
    challenger: Mapping[str, Bundle], champion: Mapping[str, Bundle], judgement: Callable[[], Judgement | None], *,
    seed: int,
) -> list[Check]:  # fmt: skip
    """Every check; a file that cannot be used is a failed check.

    `judgement` is asked for only where all else passed, because its rows take long to build; without any, quality
    fails for want of data.
    """
    found: list[Check] = []
    for name, check in (("preranker", _ranker), ("ranker", _ranker), ("two-tower", _towers), ("index", _index)):
        found += _tried(name, lambda n=name, c=check: c(n, challenger[n], champion.get(n)))  # type: ignore[misc]
    found += _tried("data", lambda: [_fresh(challenger, champion)])
    if not all(check.passed for check in found):
        return found  # what does not fit or answers nonsense needs no scores
    if (rows := judgement()) is None:
        return [*found, Check("quality", False, "too few newly labelled requests to judge by")]
    return found + _tried("quality", lambda: _quality(challenger, champion, rows, seed))


def _tried(name: str, checks: Callable[[], list[Check]]) -> list[Check]:
    try:
        return checks()
    except (MinimartError, OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        return [Check(f"{name} usable", False, f"{type(error).__name__}: {str(error)[:200]}")]


def _ranker(name: str, bundle: Bundle, champion: Bundle | None) -> list[Check]:
    names = json.loads(bundle.path("features.json").read_bytes())
    sha = bundle.manifest.meta.get("features_sha256", FEATURES_SHA)
    schema = Check(
        f"{name} schema", names == list(FEATURES) and sha == FEATURES_SHA, f"{len(names)} features in their order"
    )
    if not schema.passed:
        return [schema]
    graph = bundle.path("model.onnx").read_bytes()
    rows = _probe()
    out = onnx_export.run(graph, {"features": rows})
    finite = out.shape == (len(rows), 1) and bool(np.isfinite(out).all())
    alive = finite and float(np.ptp(out)) > 0
    checks = [schema, Check(f"{name} answers", alive, f"shape {out.shape}, finite {finite}, not constant {alive}")]
    if "model.txt" in bundle.manifest.files and bundle.manifest.meta.get("form") != "student":
        checks.append(_parity(name, bundle, rows, out[:, 0]))
    if champion is not None:
        ours, theirs = _milliseconds(graph), _milliseconds(champion.path("model.onnx").read_bytes())
        quick = ours <= max(SLOWER * theirs, theirs + SLOWER_MS)
        found = f"{ours:.2f} ms for {_LATENCY_ROWS} rows, champion {theirs:.2f}"
        checks.append(Check(f"{name} latency", quick, found))
    return checks


def _probe() -> NDArray[np.float32]:
    """Rows of all kinds: unknown, zero, and ordinary numbers."""
    rows = np.random.default_rng(0).lognormal(size=(64, len(FEATURES))).astype(np.float32)
    rows[0], rows[1] = np.nan, 0.0
    return rows


def _parity(name: str, bundle: Bundle, rows: NDArray[np.float32], scores: NDArray[Any]) -> Check:
    import lightgbm

    booster = lightgbm.Booster(model_str=bundle.path("model.txt").read_text())
    difference = onnx_export.max_difference(scores, booster.predict(rows))
    return Check(f"{name} parity", difference <= MOST_DIFFERENCE, f"{difference:.1e} <= {MOST_DIFFERENCE}")


def _milliseconds(graph: bytes) -> float:
    """Median of one batch on one thread, after a warm-up."""
    session = onnx_export.session(graph)
    rows = np.tile(_probe(), (4, 1))[:_LATENCY_ROWS]
    spent = []
    for _ in range(15):
        begun = time.perf_counter()
        session.run(None, {"features": rows})
        spent.append(time.perf_counter() - begun)
    return 1000 * float(np.median(spent[3:]))


def _towers(name: str, bundle: Bundle, champion: Bundle | None) -> list[Check]:
    two = np.zeros(2, dtype=np.int64)
    shopper: dict[str, NDArray[Any]] = {"user_index": two, "recent_items": np.zeros((2, 20), dtype=np.int64)}
    price = np.array([np.nan, 8.0], dtype=np.float32)
    item: dict[str, NDArray[Any]] = {"item_index": two, "category_index": two, "log_price": price}
    towers: list[tuple[str, str, dict[str, NDArray[Any]]]] = [
        ("shopper", "user_encoder.onnx", shopper), ("item", "item_encoder.onnx", item)
    ]  # fmt: skip
    checks = []
    for tower, file, inputs in towers:
        out = onnx_export.run(bundle.path(file).read_bytes(), inputs)
        finite = bool(np.isfinite(out).all())
        checks.append(Check(f"{tower} tower answers", out.shape == (2, 64) and finite, f"{out.shape}, finite {finite}"))
    return checks


def _index(name: str, bundle: Bundle, champion: Bundle | None) -> list[Check]:
    report = bundle.manifest.meta.get("report", {})
    recall = float(report.get("recall_at_100", 1.0))
    return [Check("index recall", recall >= 0.9, f"{recall:.3f} >= 0.9")]


def _fresh(challenger: Mapping[str, Bundle], champion: Mapping[str, Bundle]) -> Check:
    """Stale features: what it learned from must not have ended long before what the champion learned from."""
    ends = {name: int(b.manifest.meta["until_ms"]) for name, b in challenger.items() if "until_ms" in b.manifest.meta}
    theirs = max((int(b.manifest.meta.get("until_ms", 0)) for b in champion.values()), default=0)
    oldest = min(ends, key=ends.__getitem__, default="")
    behind = theirs - ends.get(oldest, theirs)
    found = f"{oldest}: {max(behind, 0) / 3_600_000:.1f} h behind the champion"
    return Check("data not stale", behind <= OLDER_MS, found)


def _quality(
    challenger: Mapping[str, Bundle], champion: Mapping[str, Bundle], judgement: Judgement, seed: int
) -> list[Check]:
    rows = judgement.rows
    ours, theirs = (_scores(one["ranker"], rows) for one in (challenger, champion))
    mine, old = ndcg_at_10(ours, rows), ndcg_at_10(theirs, rows)
    difference = paired(mine, old, seed=seed)
    least = -LOSS * float(old.mean())
    good = difference.high >= 0 and difference.mean >= least
    found = f"NDCG@10 {mine.mean():.4f}, champion {old.mean():.4f}, difference {difference}, {len(mine)} requests"
    checks = [Check("quality", good, found)]
    for name, keep in judgement.slices.items():
        if keep.sum() < SLICE_LEAST:
            continue
        part = paired(mine[keep], old[keep], seed=seed)
        fine = part.high >= 0 or part.mean >= -SLICE_LOSS * float(old[keep].mean())
        checks.append(Check(f"quality, {name}", fine, f"difference {part}, {int(keep.sum())} requests"))
    return [*checks, _calibration(challenger["ranker"], champion["ranker"], rows, ours, theirs)]


def _scores(bundle: Bundle, rows: RankingRows) -> Floats:
    out = onnx_export.run(bundle.path("model.onnx").read_bytes(), {"features": rows.features})[:, 0]
    return np.asarray(out, np.float64)


def ndcg_at_10(scores: Floats, rows: RankingRows) -> Floats:
    """Per request [G], gains 0 to 3 by label; equal scores in pessimistic order."""
    found, start = np.zeros(len(rows.groups)), 0
    discount = 1 / np.log2(np.arange(2, 12))
    for i, size in enumerate(rows.groups.tolist()):
        labels, mine = rows.labels[start : start + size], scores[start : start + size]
        start += size
        ranked = labels[np.lexsort((labels, -mine))][:10].astype(np.float64)
        ideal = np.sort(labels)[::-1][:10].astype(np.float64)
        best = float(ideal @ discount[: len(ideal)])
        found[i] = float(ranked @ discount[: len(ranked)]) / best if best else 0.0
    return found


def _calibration(ours: Bundle, theirs: Bundle, rows: RankingRows, mine: Floats, old: Floats) -> Check:
    """How far the click probabilities that each promises in its baseline are from what happened."""
    error, usual = _error(ours, rows, mine), _error(theirs, rows, old)
    if error is None:
        none = "no click model in its baseline.json"
        return Check("calibration", usual is None, none + (", as in the champion's" if usual is None else ""))
    most = MORE_ERROR + (usual if usual is not None else MORE_ERROR)
    shown = "none" if usual is None else f"{usual:.3f}"
    return Check("calibration", error <= most, f"error {error:.3f} <= {most:.3f}, champion {shown}")


def _error(bundle: Bundle, rows: RankingRows, scores: Floats) -> float | None:
    if "baseline.json" not in bundle.manifest.files:
        return None
    model: ClickModel | None = Baseline.from_dict(json.loads(bundle.path("baseline.json").read_bytes())).click_model
    if model is None:
        return None
    keep = shown_rows(scores, rows.groups)
    positions = np.ones(len(keep)) if model.uses_positions else None
    return expected_calibration_error(model.predict(scores[keep], positions), rows.labels[keep] >= 1)
