"""MLflow: runs, their metrics and artifacts, and the registry of models with aliases.

Works on the tracking store itself (SQLite and a folder under home, no server needed) or on a server by address; both
show the same runs. Only ONNX, LightGBM's text, JSON, plain tables and pictures are taken: never a pickle.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from adapters.errors import Misconfigured, NotFound, Unavailable

ALLOWED: Final = (".onnx", ".txt", ".json", ".png", ".csv", ".html")
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
MODELS: Final = ("two-tower", "preranker", "ranker")


class Run(Protocol):
    """One training run."""

    run_id: str

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log values at a step (an epoch or an iteration)."""

    def file(self, name: str, content: bytes | Path, folder: str = "") -> None:
        """Keep an artifact. Raises Misconfigured for a kind of file that is not in ALLOWED."""


class Registry(Protocol):
    """Runs and model versions. Every method raises Unavailable when the store does not answer."""

    def run(self, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Any:
        """A context manager that yields a Run; it ends FINISHED, or FAILED if the block raises."""

    def register(self, model: str, run: Run) -> int:
        """A new version of `model` from the artifacts of `run` under `model/`."""

    def promote(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Tag the version and make it `champion`; the champion so far becomes `previous`."""

    def challenge(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Tag the version and make it `challenger`."""

    def champion(self, model: str) -> tuple[int, dict[str, str]]:
        """The champion's version and tags. Raises NotFound when there is none."""


def open_registry(uri: str, home: Path) -> MlflowRegistry:
    """The registry at `uri` (http or https), or, when that is empty, on the store under `home` itself."""
    if uri:
        return MlflowRegistry(uri, None)
    folder = home / "mlflow"
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    return MlflowRegistry(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")


class _MlflowRun:
    def __init__(self, client: MlflowClient, run_id: str, artifact_uri: str) -> None:
        self._client, self.run_id, self.artifact_uri = client, run_id, artifact_uri

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        with _translated():
            entries = [Metric(name, float(value), 0, step) for name, value in values.items()]
            self._client.log_batch(self.run_id, metrics=entries)

    def file(self, name: str, content: bytes | Path, folder: str = "") -> None:
        if not name.endswith(ALLOWED):
            raise Misconfigured(f"artifact {name!r}: only {', '.join(ALLOWED)} are kept, never a pickle")
        with tempfile.TemporaryDirectory() as scratch, _translated():
            path = Path(scratch) / name
            path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
            self._client.log_artifact(self.run_id, str(path), folder or None)


class MlflowRegistry:
    """The real one."""

    def __init__(self, uri: str, artifacts: Path | None) -> None:
        self._artifacts = artifacts
        with _translated():
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    @contextmanager
    def run(self, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[_MlflowRun]:
        with _translated():
            made = self._client.create_run(self._experiment(experiment), tags=dict(tags))
            entries = [Param(name, str(value)[:500]) for name, value in params.items()]
            self._client.log_batch(made.info.run_id, params=entries, tags=[RunTag(k, v) for k, v in tags.items()])
        try:
            yield _MlflowRun(self._client, made.info.run_id, made.info.artifact_uri)
        except BaseException:
            self._client.set_terminated(made.info.run_id, "FAILED")
            raise
        with _translated():
            self._client.set_terminated(made.info.run_id, "FINISHED")

    def register(self, model: str, run: Run) -> int:
        with _translated():
            try:
                self._client.get_registered_model(model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self._client.create_registered_model(model)
            source = f"{self._client.get_run(run.run_id).info.artifact_uri}/model"
            return int(self._client.create_model_version(model, source, run.run_id).version)

    def promote(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        with _translated():
            for key, value in tags.items():
                self._client.set_model_version_tag(model, str(version), key, value)
            aliases = self._client.get_registered_model(model).aliases
            before = aliases.get(CHAMPION)
            if before is not None and int(before) != version:
                self._client.set_registered_model_alias(model, PREVIOUS, str(before))
            self._client.set_registered_model_alias(model, CHAMPION, str(version))

    def challenge(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        with _translated():
            for key, value in tags.items():
                self._client.set_model_version_tag(model, str(version), key, value)
            self._client.set_registered_model_alias(model, CHALLENGER, str(version))

    def champion(self, model: str) -> tuple[int, dict[str, str]]:
        with _translated():
            try:
                found = self._client.get_model_version_by_alias(model, CHAMPION)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise NotFound(f"model {model!r} has no champion yet; run python -m pipelines.run_all") from None
                raise
            return int(found.version), dict(found.tags)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = (self._artifacts / name).as_uri() if self._artifacts else None
        try:
            return str(self._client.create_experiment(name, artifact_location=location))
        except MlflowException:  # somebody else was first
            return str(self._client.get_experiment_by_name(name).experiment_id)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as error:
        raise Unavailable(f"MLflow did not answer: {error}") from error
