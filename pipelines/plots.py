"""Pictures for the training runs, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib.figure import Figure


def curves(history: Sequence[Mapping[str, float]], title: str) -> bytes:
    """One small panel per metric over epochs or iterations."""
    names = list(dict.fromkeys(name for row in history for name in row)) or ["nothing"]
    figure = Figure(figsize=(4.5 * len(names), 3.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        points = [(step, row[name]) for step, row in enumerate(history, start=1) if name in row]
        axis.plot(*zip(*points, strict=True) if points else ([], []), marker="o" if len(points) < 30 else "")
        axis.set(title=f"{title}: {name}", xlabel="epoch" if len(points) < 30 else "iteration")
        axis.grid(alpha=0.3)
    return _png(figure)


def bars(shares: Mapping[str, float], title: str, most: int = 25) -> bytes:
    """The largest `most` shares as horizontal bars, largest on top."""
    top = list(shares.items())[:most][::-1]
    figure = Figure(figsize=(7, 0.26 * len(top) + 1), layout="constrained")
    axis = figure.subplots()
    axis.barh([name for name, _ in top], [value for _, value in top])
    axis.set(title=title, xlabel="share of gain")
    return _png(figure)


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()
