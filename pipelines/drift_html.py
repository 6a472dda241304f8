"""The report that people look at: Evidently's, with the method and threshold of each column as declared.

Evidently drops nulls before it compares and fails on a column without values, so such columns are left out and named;
their null shares are in our own report. Nothing is sent anywhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("ITERATIVE_DO_NOT_TRACK", "1")

import pandas as pd

from models.drift.baseline import Baseline
from models.drift.columns import Column
from models.drift.watched import CATEGORIES, CLICKED, EVENTS, SCORE, WATCHED, Watch

ROWS: Final = 1000
_NAMES: Final = {"psi": "psi", "ks": "ks", "wasserstein": "wasserstein"}


def write_html(reference: Baseline, current: Baseline, path: Path) -> list[str]:
    """Write the page; returns the columns that it could not show. Both sides are drawn from their summaries."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    before, now = _columns(reference), _columns(current)
    shown = [name for name in before if name in now and before[name].filled and now[name].filled]
    texts = [name for name in shown if before[name].categorical]
    definition = DataDefinition(
        numerical_columns=[name for name in shown if name not in texts], categorical_columns=texts
    )
    frames = [
        Dataset.from_pandas(pd.DataFrame({name: side[name].draw(ROWS) for name in shown}), data_definition=definition)
        for side in (now, before)
    ]
    watches = {name: _watch(name) for name in shown}
    preset = DataDriftPreset(
        columns=shown,
        per_column_method={name: _NAMES[watch.method] for name, watch in watches.items()},
        per_column_threshold={name: watch.thresholds.alert for name, watch in watches.items()},
    )
    Report([preset]).run(frames[0], frames[1]).save_html(str(path))
    return [name for name in before if name not in shown]


def _columns(side: Baseline) -> dict[str, Column]:
    texts = {(name if name in CLICKED else f"asked from {name}"): c for name, c in side.categories.items()}
    return {**{n: c for n, c in side.columns.items() if n in WATCHED or n in EVENTS}, **texts, "score": side.scores}


def _watch(name: str) -> Watch | Any:
    declared = WATCHED | EVENTS | CLICKED
    return declared.get(name) or CATEGORIES.get(name.removeprefix("asked from ")) or SCORE
