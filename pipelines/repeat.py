"""Train a recorded run again and compare: `make repeat RUN=id`.

The run's tags say what it was made from. Its code is taken from its commit, its seed and threads are set, its inputs
are the files of the steps before it; it trains in a scratch home, so that nothing of the platform changes. Metrics are
compared value by value, models byte for byte, and what was not as it was then is named as a possible reason. Exit 0 if
everything is the same, 1 if something differs, 2 if it cannot be repeated.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from adapters.archives import extract
from adapters.errors import Corrupt, MinimartError, Misconfigured
from adapters.past_runs import PastRun, PastRuns
from adapters.provenance import ROOT
from pipelines.run_record import provenance
from pipelines.stages import STAGES, Context, open_context
from settings import Settings, load_settings

REPEATABLE: Final = ("train_two_tower", "train_preranker", "train_ranker")
MODELS: Final = (".onnx", "model.txt")
TIMES: Final = ("seconds",)  # metrics that no repetition can promise
_TAGS: Final = {
    "data_version": "the data", "inputs_sha256": "the files of the steps before", "code_sha256": "the code",
    "environment_sha256": "the locked environment", "seed": "the seed", "threads": "the number of threads",
    "hardware": "the machine",
}  # fmt: skip
_CHILD: Final = (
    "import importlib, sys; from pipelines.stages import open_context; c = open_context(); "
    "importlib.import_module('pipelines.' + sys.argv[1]).run(c, c.stage(sys.argv[2]))"
)
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Compared:
    """What differs: metric -> (then, now), file -> (then, now); `circumstances` -> (then, now)."""

    metrics: Mapping[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    circumstances: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    same_metrics: int = 0
    same_models: int = 0

    @property
    def same(self) -> bool:
        return not self.metrics and not self.files


def main(
    run_id: Annotated[str, typer.Argument(help="the run; without it the newest ones are listed")] = "",
    checkout: Annotated[bool, typer.Option(help="use this checkout's code instead of the run's commit")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Train a run again and compare."""
    settings = load_settings()
    runs = PastRuns(settings.mlflow_uri, settings.home)
    try:
        if not run_id:
            raise typer.Exit(_list(runs))
        then = runs.get(run_id)
        with tempfile.TemporaryDirectory(prefix="repeat-", dir=_made(settings.work)) as scratch:
            found, code = repeat(then, settings, Path(scratch), checkout=checkout)
    except MinimartError as error:
        console.print(error.detail)
        raise typer.Exit(2) from None
    _tell(then, found, code, as_json)
    raise typer.Exit(0 if found.same else 1)


def repeat(then: PastRun, settings: Settings, scratch: Path, *, checkout: bool = False) -> tuple[Compared, str]:
    """Train `then` again under `scratch`: the comparison, and whose code it was. Raises Misconfigured if it cannot."""
    stage = then.tags.get("stage", "")
    if then.experiment not in REPEATABLE or stage not in STAGES:
        what = f"run {then.run_id} is of {then.experiment!r}, stage {stage!r}"
        raise Misconfigured(f"{what}; training runs of {', '.join(REPEATABLE)} can be repeated")
    if "+" in then.tags.get("data_version", ""):
        raise Misconfigured(f"run {then.run_id} is of an automatic retraining: it went on from the champion and the "
                            "traffic of its moment; repeat the run of a stage")  # fmt: skip
    now = _tags_now(then, open_context(settings))
    home = _scratch_home(settings, scratch / "home")
    code, whose = (ROOT, "this checkout") if checkout else _code_of(then, scratch / "code")
    if code != ROOT:
        now["code_sha256"] = then.tags.get("code_sha256", "not recorded")  # by its commit, the very same
    _train(then, code, home)
    again = PastRuns("", home)
    newest = again.newest([then.experiment])
    return compare(then, again.get(newest[0][0]), now), whose


def compare(then: PastRun, now: PastRun, tags_now: Mapping[str, str]) -> Compared:
    """What differs between two runs of the same pipeline; times are left out."""
    names = sorted((then.metrics.keys() | now.metrics.keys()) - set(TIMES))
    metrics = {n: (list(then.metrics.get(n, ())), list(now.metrics.get(n, ()))) for n in names}
    models = sorted(f for f in then.files if f.endswith(MODELS))
    files = {f: (then.files[f], now.files.get(f, "missing")) for f in models}
    other = {t: (then.tags.get(t, "not recorded"), tags_now.get(t, "unknown")) for t in _TAGS}
    differ = {n: pair for n, pair in metrics.items() if pair[0] != pair[1]}
    changed = {f: pair for f, pair in files.items() if pair[0] != pair[1]}
    return Compared(
        differ, changed, {t: pair for t, pair in other.items() if pair[0] != pair[1]},
        len(metrics) - len(differ), len(files) - len(changed),
    )  # fmt: skip


def _tags_now(then: PastRun, context: Context) -> dict[str, str]:
    """The same tags as of today, by today's code and files."""
    stage = context.stage(then.tags["stage"])  # type: ignore[arg-type]
    if then.experiment == "train_two_tower":
        older = context.before(stage)
        reads = [] if older is None else [older.path("two_tower/weights.pt")]
    else:
        reads = [one.path("dataset/rows.npz") for one in context.rows_of(stage)]
    missing = [str(path) for path in reads if not path.exists()]
    if missing:
        raise Misconfigured(f"{', '.join(missing)}: the files that the run was trained from are gone; make demo")
    if str(stage.until_ms) != then.tags.get("until_ms"):
        raise Misconfigured(f"the lake's history ends elsewhere now: stage {stage.name} is cut at {stage.until_ms}, "
                            f"the run at {then.tags.get('until_ms')}")  # fmt: skip
    return provenance(context, then.experiment, stage, reads)


def _scratch_home(settings: Settings, home: Path) -> Path:
    """A home of its own that reads this one's lake and features, and copies what earlier steps made."""
    home.mkdir(parents=True)
    for name in ("lake", "features"):
        (home / name).symlink_to(settings.home / name, target_is_directory=True)
    for name in STAGES:
        if (settings.work / name).exists():
            shutil.copytree(settings.work / name, home / "work" / name)
    return home


def _code_of(then: PastRun, folder: Path) -> tuple[Path, str]:
    """The code of the run's commit, unpacked; this checkout's where git does not know it or the tree was dirty."""
    commit = then.tags.get("git_commit", "")
    with suppress(OSError, subprocess.CalledProcessError, tarfile.TarError, Corrupt):
        if commit and not commit.endswith("-dirty"):
            packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                extract(archive, folder)
            return folder, f"commit {commit[:12]}"
    why = "the run's tree was dirty" if commit.endswith("-dirty") else f"git does not know commit {commit or '(none)'}"
    return ROOT, f"this checkout ({why})"


def _train(then: PastRun, code: Path, home: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MINIMART_")}
    wanted = {"MINIMART_HOME": str(home), "MINIMART_SEED": then.tags.get("seed", "7"), "PYTHONPATH": str(code)}
    wanted |= {"MINIMART_THREADS": then.tags.get("threads", "2"), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, then.experiment, then.tags["stage"]], cwd=code, env=own | wanted,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Misconfigured(f"training again failed:\n{(done.stdout + done.stderr)[-2000:]}")


def _list(runs: PastRuns) -> int:
    table = Table("run", "what", "commit", box=None, pad_edge=False)
    for run_id, name, commit in runs.newest(REPEATABLE):
        table.add_row(run_id, name, commit[:12])
    console.print(table if table.rows else "no training run yet: make demo")
    return 0 if table.rows else 2


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _tell(then: PastRun, found: Compared, code: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run_id": then.run_id, "code": code, "same": found.same, **vars(found)}))
        return
    console.print(f"{then.experiment} {then.tags['stage']}, run {then.run_id}: trained again with {code}")
    console.print(f"recorded command: {then.tags.get('command', 'not recorded')}")
    console.print(f"[green]same[/]: {found.same_metrics} metrics, {found.same_models} model files byte for byte")
    for name, (was, is_now) in found.metrics.items():
        console.print(f"[red]metric {name}[/]: {_last(was)} then, {_last(is_now)} now")
    for name, (old, new) in found.files.items():
        console.print(f"[red]file {name}[/]: {old[:12]} then, {new[:12]} now")
    title = "not as it was then" if found.same else "[yellow]what is not as it was then, and may be why[/]"
    for tag, (old, new) in found.circumstances.items():
        console.print(f"{title}: {_TAGS[tag]} ({_short(old)} then, {_short(new)} now)")
    if not found.same and not found.circumstances:
        console.print("[yellow]everything recorded is as it was: the training itself is not deterministic here[/]")


def _last(values: list[float]) -> Any:
    return f"{values[-1]:.6g} ({len(values)} values)" if values else "nothing"


def _short(value: str) -> str:
    return value if len(value) < 40 or value.startswith("{") else value[:12]


if __name__ == "__main__":
    typer.run(main)
