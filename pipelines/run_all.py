"""The table of contents: from the lake to published models, step by step.

Each step is skipped when nothing that it depends on has changed since it last succeeded (a stamp per step holds the
digest of data, seed and code), so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import time
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console

from adapters.provenance import ROOT
from pipelines.stages import Context, StageName
from settings import load_settings


class Step(NamedTuple):
    """A pipeline at a stage; `title` is what the progress says."""

    pipeline: str
    stage: StageName
    title: str

    @property
    def name(self) -> str:
        return f"{self.pipeline}-{self.stage}"


STEPS: Final[tuple[Step, ...]] = (
    Step("train_two_tower", "past", "two-tower model, in full"),
    Step("build_index", "past", "item index"),
    Step("build_cooccurrence", "past", "co-occurrence and popularity"),
    Step("build_dataset", "past", "point-in-time rows of the window before the last"),
    Step("train_preranker", "backtest", "pre-ranker for the backtest"),
    Step("train_ranker", "backtest", "ranker for the backtest"),
    Step("train_two_tower", "backtest", "two-tower model, one window on"),
    Step("build_index", "backtest", "item index"),
    Step("build_cooccurrence", "backtest", "co-occurrence and popularity"),
    Step("evaluate", "backtest", "the whole funnel on the last window"),
    Step("build_dataset", "backtest", "point-in-time rows of the last window"),
    Step("train_two_tower", "production", "two-tower model on everything"),
    Step("build_index", "production", "item index"),
    Step("build_cooccurrence", "production", "co-occurrence and popularity"),
    Step("train_preranker", "production", "pre-ranker on all rows"),
    Step("train_ranker", "production", "ranker on all rows"),
    Step("publish", "production", "gate, bundles, Triton, registry"),
)
_CODE: Final = ("models", "pipelines", "feature_repo", "adapters/bundles.py", "adapters/registry.py")


def bring(context: Context, *, last: str = "publish", again: bool = False) -> None:
    """Run every step that is not up to date, through the last step of pipeline `last`; `again` repeats that one."""
    final = max(i for i, step in enumerate(STEPS) if step.pipeline == last)
    inputs, console, started = digest(context), Console(highlight=False), time.monotonic()
    for number, step in enumerate(STEPS[: final + 1], start=1):
        stamp = context.settings.work / "stamps" / f"{step.name}.json"
        label = f"[{number}/{final + 1}] {step.title}"
        if _done(stamp, inputs) and not (again and number == final + 1):
            console.print(f"[dim]{label}: up to date[/dim]")
            continue
        begun = time.monotonic()
        with console.status(f"{label} ..."):
            module = importlib.import_module(f"pipelines.{step.pipeline}")
            module.run(context, context.stage(step.stage))
        seconds = round(time.monotonic() - begun, 1)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps({"inputs": inputs, "seconds": seconds}))
        console.print(f"{label}: [bold]{seconds} s[/bold] ({time.monotonic() - started:.0f} s so far)")


def digest(context: Context) -> str:
    """What all steps depend on: the history (its version and end), the seed and the code."""
    found = hashlib.sha256(json.dumps([
        context.meta.get("data_version"), context.meta["as_of_ms"], context.settings.seed, context.settings.mlflow_uri,
    ]).encode())  # fmt: skip
    for name in _CODE:
        path = ROOT / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def _done(stamp: Path, inputs: str) -> bool:
    try:
        return bool(json.loads(stamp.read_text())["inputs"] == inputs)
    except (OSError, ValueError, KeyError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--through", choices=sorted({s.pipeline for s in STEPS}), default="publish", help="stop after")
    parser.add_argument("--again", action="store_true", help="repeat the last step even if it is up to date")
    chosen = parser.parse_args()
    context = Context(load_settings(), Console(highlight=False, soft_wrap=True).print)
    bring(context, last=chosen.through, again=chosen.again)


if __name__ == "__main__":
    main()
