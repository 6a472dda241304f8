"""The table of contents: from the lake to published models, step by step.

Each step is skipped when nothing that it depends on has changed since it last succeeded: a stamp per step holds the
digest of data, seed, the step's own code with all that it imports, and the keys of the steps whose files it reads. So
an interrupted run goes on where it stopped, and a change trains again what it can change and nothing else.
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

from adapters.code_digest import code_digest
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
    Step("build_dataset", "backtest", "point-in-time rows of the last window"),
    Step("choose_forms", "backtest", "trees or their students, by the last window"),
    Step("evaluate", "backtest", "the whole funnel on the last window"),
    Step("train_two_tower", "production", "two-tower model on everything"),
    Step("build_index", "production", "item index"),
    Step("build_cooccurrence", "production", "co-occurrence and popularity"),
    Step("train_preranker", "production", "pre-ranker on all rows"),
    Step("train_ranker", "production", "ranker on all rows"),
    Step("publish", "production", "gate, bundles, Triton, registry"),
)
_MODELS: Final = ("train_two_tower", "build_index", "build_cooccurrence")
_READS: Final[dict[str, tuple[str, ...]]] = {  # pipeline -> the pipelines whose newest files it reads
    "train_two_tower": ("train_two_tower",),
    "build_index": ("train_two_tower",),
    "build_cooccurrence": (),
    "build_dataset": _MODELS,
    "train_preranker": ("build_dataset", "train_preranker", "choose_forms"),
    "train_ranker": ("build_dataset", "train_ranker", "choose_forms"),
    "choose_forms": ("build_dataset", "train_preranker", "train_ranker"),
    "evaluate": (*_MODELS, "train_preranker", "train_ranker", "choose_forms"),
    "publish": (*_MODELS, "train_preranker", "train_ranker", "evaluate"),
}


def bring(context: Context, *, last: str = "publish", again: bool = False) -> None:
    """Run every step that is not up to date, through the last step of pipeline `last`; `again` repeats that one."""
    final = max(i for i, step in enumerate(STEPS) if step.pipeline == last)
    wanted, console, started = keys(context), Console(highlight=False), time.monotonic()
    for number, step in enumerate(STEPS[: final + 1], start=1):
        stamp = context.settings.work / "stamps" / f"{step.name}.json"
        label = f"[{number}/{final + 1}] {step.title}"
        if _done(stamp, wanted[step.name]) and not (again and number == final + 1):
            console.print(f"[dim]{label}: up to date[/dim]")
            continue
        begun = time.monotonic()
        with console.status(f"{label} ..."):
            module = importlib.import_module(f"pipelines.{step.pipeline}")
            module.run(context, context.stage(step.stage))
        seconds = round(time.monotonic() - begun, 1)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps({"inputs": wanted[step.name], "seconds": seconds}))
        console.print(f"{label}: [bold]{seconds} s[/bold] ({time.monotonic() - started:.0f} s so far)")


def keys(context: Context) -> dict[str, str]:
    """The key of every step: the history (its version and end), the seed, its code, and the keys of what it reads."""
    meta, settings = context.meta, context.settings
    data = [meta.get("data_version"), meta["as_of_ms"], settings.seed, settings.mlflow_uri]
    found: dict[str, str] = {}
    for number, step in enumerate(STEPS):
        read = [found[one.name] for one in reads(number)]
        made_of = json.dumps([data, code_digest(f"pipelines.{step.pipeline}"), read])
        found[step.name] = hashlib.sha256(made_of.encode()).hexdigest()
    return found


def reads(number: int) -> list[Step]:
    """The earlier steps whose files step `number` reads: all datasets, all of its own past, the newest of others."""
    step, earlier = STEPS[number], STEPS[:number]
    found = []
    for pipeline in _READS[step.pipeline]:
        steps = [one for one in earlier if one.pipeline == pipeline]
        found += steps if pipeline in ("build_dataset", step.pipeline) else steps[-1:]
    return found


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
