"""Prometheus and Alertmanager, where their binaries are on PATH. What to scrape comes from the parts list."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipelines.stack.launch import CannotRun, Launch
from settings import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
ALERTMANAGER_CONFIG = ROOT / "deploy" / "prometheus" / "alertmanager.yml"
MONITOR = "http://monitor:8100"  # as alertmanager.yml names it, by its name among containers
INSTALL = "apt install prometheus prometheus-alertmanager (macOS: brew install prometheus alertmanager)"


def binary(*names: str) -> str:
    """The first of `names` that is on PATH. Raises CannotRun with the install command."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise CannotRun(f"{names[0]} is not on PATH; metrics are served all the same. To watch them: {INSTALL}")


def scrape_config(
    targets: list[tuple[str, str, str]], alertmanager: str, interval: str = "5s", rules: Path = RULES
) -> dict[str, Any]:
    """Prometheus' configuration as plain data; `targets` are (part, host:port, path)."""
    jobs = [
        {"job_name": part, "metrics_path": path, "static_configs": [{"targets": [target], "labels": {"part": part}}]}
        for part, target, path in targets
    ]
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(rules)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}] if alertmanager else []},
        "scrape_configs": jobs,
    }


def launch(
    folder: Path, *, host: str, port: int, alertmanager: str, targets: list[tuple[str, str, str]], interval: str = "5s",
    rules: Path = RULES,
) -> Launch:
    """Keeps two days or 256 MB of samples in `folder`. Without `alertmanager` nobody is told of alerts."""
    command = binary("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(json.dumps(scrape_config(targets, alertmanager, interval, rules), indent=1))  # JSON is YAML
    options = {
        "config.file": config, "storage.tsdb.path": folder / "data", "storage.tsdb.retention.time": "2d",
        "storage.tsdb.retention.size": "256MB", "web.listen-address": f"{host}:{port}", "log.level": "warn",
    }
    return Launch((command, *(f"--{key}={value}" for key, value in options.items())))


def launch_alertmanager(folder: Path, *, host: str, port: int, monitor: str) -> Launch:
    """One instance without gossip: its cluster port stays closed. It tells the monitor at `monitor` (a URL)."""
    command = binary("prometheus-alertmanager", "alertmanager")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "alertmanager.yml"
    config.write_text(ALERTMANAGER_CONFIG.read_text().replace(MONITOR, monitor))
    options = {
        "config.file": config, "storage.path": folder, "web.listen-address": f"{host}:{port}",
        "cluster.listen-address": "", "log.level": "warn",
    }
    return Launch((command, *(f"--{key}={value}" for key, value in options.items())))
