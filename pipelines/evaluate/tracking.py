"""Keeps an evaluation in MLflow where there is a tracking store: metrics by model, curves of tuning and training."""

from __future__ import annotations

import json
from typing import Any

from adapters.registry import open_registry
from pipelines.evaluate.compare import Compared
from pipelines.plots import curves
from settings import Settings

EXPERIMENT = "evaluate"


def has_store(settings: Settings) -> bool:
    """Whether there is a server's address, or the store of a platform that has run."""
    return bool(settings.mlflow_uri) or (settings.home / "mlflow" / "mlflow.db").exists()


def log(settings: Settings, found: Compared, report: dict[str, Any]) -> None:
    """One run: parameters, every model's mean metrics on all users, one curve per model, the report."""
    registry = open_registry(settings.mlflow_uri, settings.home)
    tags = {
        "mlflow.runName": f"{EXPERIMENT} {report['protocol']}", "git_commit": report["commit"],
        "command": report["command"], "data_version": report["data_version"], "seed": str(report["seed"]),
        "hardware": json.dumps(report["hardware"]),
    }  # fmt: skip
    params = {"protocol": report["protocol"], "budget_seconds": report["budget_seconds"], "seed": report["seed"]}
    with registry.run(EXPERIMENT, params, tags) as run:
        for row in report["rows"]:
            if row["slice"] == "all":
                run.metrics({f"{row['model']}.{m.replace('@', '_at_')}": v["mean"] for m, v in row["metrics"].items()})
        for name, tuned in found.tuned.items():
            chosen = tuned.chosen
            steps = chosen.values if tuned.rounds else [trial.values[0] for trial in tuned.trials]
            for step, value in enumerate(steps, start=1):
                run.metrics({f"{name}.validation": value}, step=step)
            points = [{"validation": value} for value in steps]
            if tuned.rounds:
                points = [p | {"loss": loss} for p, loss in zip(points, chosen.losses, strict=True)]
            run.file(f"{name}.png", curves(points, name), folder="curves")
        run.file("evaluation.json", (json.dumps(report, indent=2) + "\n").encode())
