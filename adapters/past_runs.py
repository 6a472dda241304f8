"""A training run as MLflow remembers it: parameters, tags, the curve of every metric, and what its files hold."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from adapters.errors import NotFound, Unavailable

MOST: Final = 20


@dataclass(frozen=True)
class PastRun:
    """`metrics`: name -> its values in the order of steps; `files`: path -> SHA-256."""

    run_id: str
    experiment: str
    status: str
    started_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, Sequence[float]]
    files: Mapping[str, str]


class PastRuns:
    """Reads the store at `uri`, or, when that is empty, the one under `home`."""

    def __init__(self, uri: str, home: Path) -> None:
        self._client: Any = MlflowClient(tracking_uri=uri or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")

    def get(self, run_id: str) -> PastRun:
        """One run, its files read whole. Raises NotFound, or Unavailable when the store does not answer."""
        try:
            found = self._client.get_run(run_id)
            metrics = {name: self._curve(run_id, name) for name in found.data.metrics}
            with tempfile.TemporaryDirectory() as scratch:
                files = self._files(run_id, Path(scratch))
            experiment = self._client.get_experiment(found.info.experiment_id).name
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise NotFound(f"MLflow knows no run {run_id!r}", field="run_id") from None
            raise Unavailable(f"MLflow did not answer: {error}") from error
        return PastRun(
            run_id, experiment, found.info.status, found.info.start_time, dict(found.data.params),
            dict(found.data.tags), metrics, files,
        )  # fmt: skip

    def newest(self, experiments: Sequence[str]) -> list[tuple[str, str, str]]:
        """(run id, run's name, git commit) of the newest finished runs of these experiments."""
        known = [e for name in experiments if (e := self._client.get_experiment_by_name(name)) is not None]
        runs = self._client.search_runs(
            [e.experiment_id for e in known], "status = 'FINISHED'", max_results=MOST, order_by=["start_time DESC"]
        ) if known else []  # fmt: skip
        return [(r.info.run_id, r.info.run_name or "", r.data.tags.get("git_commit", "")) for r in runs]

    def _curve(self, run_id: str, name: str) -> list[float]:
        history = self._client.get_metric_history(run_id, name)
        return [m.value for m in sorted(history, key=lambda m: (m.step, m.timestamp))]

    def _files(self, run_id: str, scratch: Path) -> dict[str, str]:
        if not self._client.list_artifacts(run_id):
            return {}
        root = Path(self._client.download_artifacts(run_id, "", str(scratch)))
        found = {}
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found
