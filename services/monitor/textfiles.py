"""Metrics of programs that end: each leaves a file in Prometheus' text format, and the monitor shows them all.

A file that cannot be read, or that names a metric which is not ours, is left out and counted; the others are shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

OURS = "minimart_"


class TextFiles(Collector):
    """All `*.prom` files of a folder, as one source of metrics."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def describe(self) -> list[Metric]:
        """Nothing in advance: what there is, is seen when it is read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families of every good file, each file's age in seconds, and how many files are bad."""
        ages = GaugeMetricFamily("minimart_textfile_age_seconds", "Age of a file of metrics", labels=["file"])
        bad, seen = 0, set[str]()
        for path in sorted(self.folder.glob("*.prom")):
            try:
                families = _families(path.read_text(encoding="utf-8"), seen)
                ages.add_metric([path.stem], max(0.0, time.time() - path.stat().st_mtime))
            except (OSError, ValueError):
                bad += 1
                continue
            seen |= {family.name for family in families}
            yield from families
        yield ages
        yield GaugeMetricFamily("minimart_textfiles_bad", "Files of metrics that were left out", value=bad)


def _families(text: str, seen: set[str]) -> list[Metric]:
    families = list(text_string_to_metric_families(text))
    if foreign := [f.name for f in families if not f.name.startswith(OURS) or f.name in seen]:
        raise ValueError(f"not ours, or told by another file: {foreign}")
    return families
