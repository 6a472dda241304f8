"""The pictures of the drills' reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib.figure import Figure

COLOURS: Final = ("#1f6f8b", "#d1495b", "#edae49", "#66a182", "#8d6a9f", "#5c5c5c")
BIN_S: Final = 10.0

Points = Sequence[tuple[float, float]]
Marks = Sequence[tuple[float, str]]


def story(
    path: Path, title: str, quality: Points, versions: dict[str, Points], marks: Marks, *,
    label: str = "share of the best possible clicks",
) -> None:  # fmt: skip
    """Quality over time above, share of answers by version below; marks are (second, what happened)."""
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    if quality:
        x, y = np.array(quality).T
        top.plot(x, y, ".", color=COLOURS[0], alpha=0.15, markersize=3)
        at, mean = binned(quality)
        top.plot(at, mean, "-o", color=COLOURS[0], markersize=4)
        top.set_ylim(0, max(0.05, float(np.nanmax(mean)) * 1.35))
    top.set_ylabel(label)
    top.set_title(title, loc="left", fontsize=11)
    height = top.get_ylim()[1]
    for n, (when, what) in enumerate(marks):
        for axis in (top, bottom):
            axis.axvline(when, color="#999999", linewidth=0.8, linestyle=":")
        top.text(when, height * (0.99 - 0.06 * (n % 4)), f" {what}", fontsize=7.5, va="top")
    _shares(bottom, versions)
    bottom.set_xlabel("seconds since the drill began")
    figure.savefig(path, dpi=110)


def binned(points: Points, width: float = BIN_S) -> tuple[Any, Any]:
    """Middles of the time bins and the means in them."""
    x, y = np.array(points).T
    cell = np.floor(x / width).astype(int)
    cells = np.unique(cell)
    return (cells + 0.5) * width, np.array([y[cell == c].mean() for c in cells])


def _shares(axis: Any, versions: dict[str, Points]) -> None:
    when = {name: np.array([x for x, _ in points]) for name, points in versions.items()}
    every = np.concatenate([*when.values(), np.zeros(0)])
    if not len(every):
        return
    edges = np.arange(np.floor(every.min() / 5) * 5, every.max() + 5, 5)
    total = np.maximum(np.histogram(every, edges)[0], 1)
    floor = np.zeros(len(total))
    for n, (name, seconds) in enumerate(when.items()):
        share = np.histogram(seconds, edges)[0] / total
        colour = COLOURS[n % len(COLOURS)]
        axis.fill_between(edges[:-1], floor, floor + share, step="post", label=name, color=colour, alpha=0.8)
        floor = floor + share
    axis.set_ylim(0, 1)
    axis.set_ylabel("share of answers")
    axis.legend(loc="center left", fontsize=8, frameon=False, ncols=min(4, len(versions)))


def lines(path: Path, title: str, series: dict[str, Points], marks: Marks, label: str) -> None:
    """Several series over the seconds of a drill."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    axis = figure.subplots()
    for n, (name, points) in enumerate(series.items()):
        if len(points):
            x, y = np.array(points).T
            axis.plot(x, y, "-o", markersize=3, label=name, color=COLOURS[n % len(COLOURS)])
    top = axis.get_ylim()[1]
    for n, (when, what) in enumerate(marks):
        axis.axvline(when, color="#999999", linewidth=0.8, linestyle=":")
        axis.text(when, top * (0.99 - 0.07 * (n % 3)), f" {what}", fontsize=7.5, va="top")
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_ylabel(label)
    axis.set_xlabel("seconds since the drill began")
    axis.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def spans(path: Path, title: str, spans: Mapping[str, tuple[float, float | None]]) -> None:
    """One bar a name, from (begin, length) in seconds; what has no length never came and gets a cross."""
    figure = Figure(figsize=(11, 1.2 + 0.28 * len(spans)), layout="constrained")
    axis = figure.subplots()
    for row, (begin, length) in enumerate(spans.values()):
        if length is None:
            axis.plot(begin, row, "x", color=COLOURS[1])
        else:
            axis.barh(row, max(length, 0.5), left=begin, color=COLOURS[0], height=0.6)
    axis.set_ylim(len(spans) - 0.4, -0.6)
    axis.set_yticks(range(len(spans)), list(spans), fontsize=8)
    axis.set_xlim(left=0)
    axis.grid(axis="y", color="#eeeeee")
    axis.set_axisbelow(True)
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel("seconds since the drill began: from the fault to its alert")
    figure.savefig(path, dpi=110)
