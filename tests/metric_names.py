"""Which metrics our code declares, and which ones a PromQL expression names."""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from pipelines import drift_report
from settings import ROOT

# What Prometheus, Alertmanager and Triton export themselves, as far as rules and dashboards use it.
FOREIGN: Final = frozenset(
    {
        "up", "ALERTS", "alertmanager_notifications_failed_total", "alertmanager_notifications_total",
        "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "scrape_duration_seconds",
        "nv_inference_request_success", "nv_inference_request_failure", "nv_inference_exec_count",
        "nv_inference_queue_duration_us", "nv_inference_compute_infer_duration_us",
        "prometheus_tsdb_head_series",
    }
)  # fmt: skip
FOLDERS: Final = ("adapters", "models", "pipelines", "services")
DECLARED: Final = re.compile(r"""(Counter|Gauge|Histogram|Summary|GaugeMetricFamily)\(\s*f?["'](minimart_\w+)["']""")
NAMED: Final = re.compile(r"\b((?:minimart|nv|alertmanager|process|prometheus|scrape)_\w+|up|ALERTS)\b")
PARTS: Final = {"Histogram": ("_bucket", "_sum", "_count"), "Summary": ("_sum", "_count"), "Counter": ("",)}


@cache
def declared() -> frozenset[str]:
    """Every sample name that our source declares, and the foreign ones that we use."""
    found: set[str] = set(FOREIGN)
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for kind, name in DECLARED.findall(path.read_text(encoding="utf-8")):
                base = f"{name.removesuffix('_total')}_total" if kind == "Counter" else name
                found |= {base + suffix for suffix in PARTS.get(kind, ("",))}
    return frozenset(found | drift_gauges())


def drift_gauges() -> set[str]:
    """The names in the file of metrics that a drift check leaves; some of them are made up when it is written."""
    row = {"name": "x", "psi": 0.0, "ks": 0.0, "wasserstein": 0.0, "js": 0.0, "null_share": 0.0}
    rates = {"estimated": {"click_rate": 0.0}, "realised": {"click_rate": 0.0}}
    document = {"kinds": {"data": "healthy"}, "features": [row], "at_ms": 0, "asked": 0, "performance": rates}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drift.prom"
        drift_report.gauges(document, path)
        return {family.name for family in text_string_to_metric_families(path.read_text())}


def named_in(expression: str) -> set[str]:
    """The sample names of an expression; what stands in quotes (label values) does not count."""
    return set(NAMED.findall(re.sub(r'"[^"]*"', '""', expression)))
