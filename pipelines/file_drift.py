"""Files a drift report in MLflow with the page that people look at: `python -m pipelines.file_drift PAPERS.json`.

Apart from `check_drift`, because a verdict is needed at once and MLflow and Evidently take seconds. One at a time, with
what the machine has to spare.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adapters.errors import MinimartError
from adapters.provenance import commit, environment_digest
from models.drift.base import Level
from models.drift.baseline import Baseline
from settings import ROOT, Settings, load_settings

EXPERIMENT: Final = "drift"


@dataclass(frozen=True)
class Papers:
    """A report and both sides of what it compared; without `page` only figures are filed."""

    document: Mapping[str, Any]
    reference: Baseline | None
    traffic: Baseline | None


def file(papers: Papers, settings: Settings) -> None:
    """An MLflow run with the report, its figures and Evidently's page. Raises Unavailable."""
    document = papers.document
    params = {"window": document["window_text"], "baseline": document["baseline"], **document["versions"]}
    tags = {
        "verdict": document["verdict"], "git_commit": commit(), "environment_sha256": environment_digest(),
        "mlflow.runName": f"drift {document['verdict']}", **{f"kind_{k}": v for k, v in document["kinds"].items()},
    }  # fmt: skip
    from adapters.registry import open_registry  # MLflow takes seconds to import, and most checks leave no run

    with open_registry(settings.mlflow_uri, settings.home).run(EXPERIMENT, params, tags) as run:
        levels = {f"level_{k}": float(Level[v.upper()]) for k, v in document["kinds"].items()}
        psi = {f"psi_{f['name'].replace(' ', '_')}": f["psi"] for f in document["features"] if f["psi"] is not None}
        run.metrics({**levels, **psi, "requests": float(document["requests"])})
        run.file("report.json", json.dumps(document, indent=1).encode())
        if papers.reference is not None and papers.traffic is not None:
            from pipelines.drift_html import write_html  # seconds to import, and not needed to decide

            path = settings.home / "drift" / "report.html"
            write_html(papers.reference, papers.traffic, path)
            run.file("report.html", path)


def file_later(papers: Papers, settings: Settings) -> None:
    """The same in a process of its own that nobody waits for; its words go to home/drift/filing.log."""
    folder = settings.home / "drift"
    path = folder / f"papers-{papers.document['id']}.json"
    sides = (papers.reference, papers.traffic)
    path.write_text(json.dumps([papers.document, *(None if side is None else side.as_dict() for side in sides)]))
    with (folder / "filing.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "pipelines.file_drift", str(path)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True,
        )  # fmt: skip


def main() -> None:
    path = Path(sys.argv[1])
    settings = load_settings()
    os.nice(10)
    with (settings.home / "drift" / "filing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        document, *sides = json.loads(path.read_bytes())
        path.unlink()
        try:
            file(Papers(document, *(None if side is None else Baseline.from_dict(side) for side in sides)), settings)
        except MinimartError as error:
            raise SystemExit(f"{document['id']} is not in MLflow: {error.detail.splitlines()[0]}") from None
        print(f"{document['id']} is filed in MLflow")


if __name__ == "__main__":
    main()
