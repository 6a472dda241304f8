"""What every training run records besides its own numbers: data, commit, environment, seed, stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from adapters.provenance import commit, environment_digest
from adapters.registry import Registry, Run
from pipelines.stages import Context, Stage


@contextmanager
def record(
    registry: Registry, context: Context, experiment: str, stage: Stage, params: Mapping[str, Any]
) -> Iterator[Run]:
    """A run of `experiment` (named after the pipeline) with the tags that make it repeatable."""
    tags = {
        "stage": stage.name,
        "data_version": str(context.meta.get("data_version", "unknown")),
        "data_source": str(context.meta.get("source", "unknown")),
        "until_ms": str(stage.until_ms),
        "git_commit": commit(),
        "environment_sha256": environment_digest(),
        "seed": str(context.settings.seed),
        "mlflow.runName": f"{experiment} {stage.name}",
    }
    with registry.run(experiment, {**params, "until_ms": stage.until_ms}, tags) as run:
        yield run
