"""What every training run records besides its own numbers: all that it takes to train it again.

Data (version, end, digest of the files that were read), code (commit, and a digest of what the pipeline imports), the
locked environment, seed and threads, the command, the machine. `make repeat RUN=id` reads these tags.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.code_digest import code_digest
from adapters.provenance import ROOT, commit, environment_digest, hardware
from adapters.registry import Registry, Run
from pipelines.stages import Context, Stage


@contextmanager
def record(
    registry: Registry, context: Context, experiment: str, stage: Stage, params: Mapping[str, Any],
    reads: Sequence[Path] = (),
) -> Iterator[Run]:  # fmt: skip
    """A run of `experiment` (named after the pipeline) with the tags that make it repeatable.

    `reads` are the files of earlier steps that it was trained from.
    """
    tags = provenance(context, experiment, stage, reads) | {"mlflow.runName": f"{experiment} {stage.name}"}
    with registry.run(experiment, {**params, "until_ms": stage.until_ms}, tags) as run:
        yield run


def provenance(context: Context, experiment: str, stage: Stage, reads: Sequence[Path]) -> dict[str, str]:
    """The tags of a run, by name."""
    module = f"pipelines.{experiment}"
    return {
        "stage": stage.name,
        "data_version": str(context.meta.get("data_version", "unknown")),
        "data_source": str(context.meta.get("source", "unknown")),
        "until_ms": str(stage.until_ms),
        "inputs_sha256": digest_of(reads),
        "git_commit": commit(),
        "code_sha256": code_digest(module) if _ours(experiment) else "unknown",
        "environment_sha256": environment_digest(),
        "seed": str(context.settings.seed),
        "threads": str(context.settings.threads),
        "command": command(),
        "hardware": json.dumps(hardware()),
    }


def _ours(experiment: str) -> bool:
    return any((ROOT / "pipelines" / name).exists() for name in (f"{experiment}.py", f"{experiment}/__init__.py"))


def command() -> str:
    """How this process was started, without the paths of this machine."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    module = "" if spec is None else spec.name.removesuffix(".__main__")
    start = ["python", "-m", module] if module else [Path(sys.argv[0]).name]
    return shlex.join([*start, *sys.argv[1:]])


def digest_of(files: Sequence[Path]) -> str:
    """One SHA-256 over the contents of files, in order; `none` without files."""
    if not files:
        return "none"
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
