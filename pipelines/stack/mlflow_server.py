"""MLflow's tracking server and registry: one worker, sqlite, artifacts on disk and served through it."""

from __future__ import annotations

from pathlib import Path

import httpx

from pipelines.stack.launch import Launch, python_of


def launch(folder: Path, *, host: str, port: int) -> Launch:
    """`folder` holds mlflow.db and artifacts/. Runs in the training set, the only one that has MLflow."""
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    command = (
        python_of("training"), "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts",
    )
    quiet = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    return Launch(command, quiet)


def ready(host: str, port: int) -> bool:
    """Whether its health route answers."""
    try:
        return httpx.get(f"http://{host}:{port}/health", timeout=1.0).status_code == 200
    except httpx.HTTPError:
        return False
