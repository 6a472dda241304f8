"""A challenger, quickly: go on from the champion on the newest data, gate it, publish it beside the champion.

    python -m pipelines.retrain --id r-1 --out result.json                     train on what happened since
    python -m pipelines.retrain --id r-1 --out result.json --given FOLDER      gate bundles that somebody made

Nothing is served by it: the controller decides that. Steps that are done stay done when the job is started again after
a kill, and a second job waits for nobody: it says which one runs. `result.json` is what services/controller reads.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from adapters.bundle_archive import keep
from adapters.bundles import Bundle, Gate, load_bundle, write_bundle
from adapters.errors import BadInput, Conflict, Corrupt, MinimartError
from adapters.pointers import load_current
from adapters.registry import open_registry
from pipelines import build_cooccurrence, build_index, train_preranker, train_ranker, train_two_tower
from pipelines.build_dataset import load_rows
from pipelines.challenge import Judgement, judge
from pipelines.gate import Check
from pipelines.newest import Newest, check_vocabulary, judged, newest_rows
from pipelines.publish import bundles_of, forget_old, into_triton
from pipelines.run_record import record
from settings import Settings, load_settings

KEPT_JOBS: Final = 3
SETTLE_MS: Final = 4_000
"""Events younger than this may still be on their way into the lake."""
REFUSED: Final = 2
LOCK_WAIT_S: Final = 600
TRAINED: Final = ("two-tower", "preranker", "ranker")


def run(settings: Settings, job: str, say: Callable[[str], None], given: Path | None, bypass: bool) -> dict[str, Any]:
    """The result of the job: outcome `passed` or `refused`, the challenger's bundles, and what was found."""
    if bypass and not settings.gate_bypass_allowed:
        raise BadInput("the gate cannot be bypassed here: set MINIMART_ROLLOUT_GATE_BYPASS=true; never in production")
    started = time.monotonic()
    context = _context(settings, job, say)
    champion = load_current(settings.published)
    bundles = _given(context, given, champion) if given is not None else _trained(context)
    found = judge(bundles, champion, lambda: _judgement(context), seed=settings.seed)
    failed = [f"{check.name} ({check.found})" for check in found if not check.passed]
    for check in found:
        say(f"  gate {'passed' if check.passed else 'FAILED'}: {check.name} ({check.found})")
    evidence = {"gate": [asdict(check) for check in found], "seconds": round(time.monotonic() - started, 1)}
    if failed and not bypass:
        return {"outcome": "refused", "reason": "; ".join(failed)[:600], "evidence": evidence}
    gate: Gate = "bypassed" if bypass else "passed"
    challenger = _publish(context, bundles, champion, found, gate, register=given is not None)
    reason = f"bypassed, although: {'; '.join(failed)[:500]}" if failed else f"{len(found)} checks passed"
    evidence["seconds"] = round(time.monotonic() - started, 1)
    return {
        "outcome": "passed", "reason": reason, "bypassed": bypass, "evidence": evidence,
        "challenger": {n: {"version": b.version, "manifest_sha256": b.manifest_sha256} for n, b in challenger.items()},
    }  # fmt: skip


def _context(settings: Settings, job: str, say: Callable[[str], None]) -> Newest:
    """The job's moment: chosen once, so that a job that is started again goes on with the same data."""
    folder = settings.work / "retrain" / job
    folder.mkdir(parents=True, exist_ok=True)
    moment = folder / "moment.txt"
    if not moment.exists():
        moment.write_text(str(time.time_ns() // 1_000_000 - SETTLE_MS))
    return Newest(settings, say, int(moment.read_text()), folder)


def _trained(context: Newest) -> dict[str, Bundle]:
    """Train what learns, build what is counted, and write bundles that are still to be gated."""
    check_vocabulary(context)
    stage = context.stage("production")
    newest_rows(context)
    for step in (train_two_tower, build_index, build_cooccurrence, train_preranker, train_ranker):
        done = stage.path(f"done/{step.__name__}")
        if not done.exists():
            begun = time.monotonic()
            step.run(context, stage)
            done.write_text(f"{time.monotonic() - begun:.1f}")
    return bundles_of(context, stage, {}, context.folder / "bundles", "pending")


def _given(context: Newest, folder: Path, champion: dict[str, Bundle]) -> dict[str, Bundle]:
    """The bundles in `folder`, verified; what it lacks is the champion's. Raises Corrupt."""
    found = {}
    for path in sorted(folder.glob("*/*/manifest.json")):
        bundle = load_bundle(path.parent)
        if bundle.name not in champion:
            raise Corrupt(f"{path.parent}: {bundle.name!r} is no model of this platform: {', '.join(champion)}")
        if bundle.name in found:
            raise Corrupt(f"{folder} holds two versions of {bundle.name}: give one")
        found[bundle.name] = bundle
    if not found:
        raise Corrupt(f"{folder} holds no bundle: <name>/<version>/manifest.json is expected")
    return champion | found


def _judgement(context: Newest) -> Judgement | None:
    """The rows to judge by; None where too few requests had an outcome."""
    try:
        newest_rows(context)
    except BadInput as error:
        context.say(f"  no rows to judge by: {error.detail}")
        return None
    return Judgement(load_rows(judged(context))[0])


def _publish(
    context: Newest, bundles: dict[str, Bundle], champion: dict[str, Bundle], found: list[Check], gate: Gate, *,
    register: bool,
) -> dict[str, Bundle]:  # fmt: skip
    """Write gated copies beside the champion's and have Triton load them."""
    settings, published = context.settings, {}
    findings = {check.name: check.found for check in found}
    versions = {name: bundle.version for name, bundle in bundles.items()}
    for name, bundle in bundles.items():
        if champion.get(name) is not None and bundle.folder == champion[name].folder:
            published[name] = champion[name]
            continue
        version = _registered(context, bundle) if register and name in TRAINED else bundle.version
        versions[name] = version
        meta = dict(bundle.manifest.meta) | {"gate": findings, "retrain": context.folder.name}
        if name == "index" and meta.get("encoder_version") == bundles["two-tower"].version:
            meta["encoder_version"] = versions.get("two-tower", meta["encoder_version"])
        files = {file: bundle.path(file) for file in bundle.manifest.files}
        published[name] = _written(settings.published, name, version, files, meta, gate)
    into_triton(settings, published, context.say, bypass=gate == "bypassed")
    keep(settings.published, published)
    _tag(context, published, champion, gate)
    return published


def _written(folder: Path, name: str, version: str, files: dict[str, Path], meta: dict[str, Any], gate: Gate) -> Bundle:
    """A version that an earlier attempt of this job has written is taken as it is."""
    before = folder / name / version
    if before.exists():
        bundle = load_bundle(before)
        if bundle.manifest.meta.get("retrain") == meta["retrain"]:
            return bundle
    return write_bundle(folder, name, version, dict(files), meta, gate=gate)


def _registered(context: Newest, bundle: Bundle) -> str:
    """The version that the registry gives a bundle that somebody made; asked for once per job."""
    kept = context.folder / f"version-{bundle.name}.txt"
    if not kept.exists():
        registry = open_registry(context.settings.mlflow_uri, context.settings.home)
        params = {"given_version": bundle.version, "manifest_sha256": bundle.manifest_sha256}
        with record(registry, context, "retrain", context.stage("production"), params) as made:
            for file in bundle.manifest.files:
                if file.endswith((".onnx", ".txt", ".json")):
                    made.file(file, bundle.path(file), folder="model")
            kept.write_text(str(registry.register(bundle.name, made)))
    return kept.read_text()


def _tag(context: Newest, published: dict[str, Bundle], champion: dict[str, Bundle], gate: Gate) -> None:
    registry = open_registry(context.settings.mlflow_uri, context.settings.home)
    for name in TRAINED:
        if published[name].manifest_sha256 != champion[name].manifest_sha256:
            tags = {
                "data_version": str(context.meta.get("data_version")), "gate": gate,
                "manifest_sha256": published[name].manifest_sha256, "retrain": context.folder.name,
            }  # fmt: skip
            registry.challenge(name, int(published[name].version), tags)


@contextmanager
def _alone(folder: Path, job: str) -> Iterator[None]:
    """One retraining at a time. The same job waits for its earlier process, another one raises Conflict."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip()
                if holder and holder != job:
                    raise Conflict(f"another retraining is under way: {holder}") from None
                if time.monotonic() > until:
                    raise Conflict(f"an earlier process of {job} has not ended in {LOCK_WAIT_S} s") from None
                time.sleep(0.5)
        file.truncate(0)
        file.write(job)
        file.flush()
        yield


def _forget_jobs(settings: Settings, job: str) -> None:
    """Keep the newest jobs' files and those of the job that trained the champion."""
    folders = sorted((p for p in (settings.work / "retrain").iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    champion = load_current(settings.published)["two-tower"].version
    for folder in folders[:-KEPT_JOBS]:
        version = folder / "two_tower" / "version.txt"
        if folder.name != job and not (version.exists() and version.read_text().strip() == champion):
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--id", required=True, help="name of the job; the same name goes on where it stopped")
    parser.add_argument("--out", type=Path, required=True, help="where the result is written, as JSON")
    parser.add_argument("--given", type=Path, help="folder with <name>/<version>/manifest.json to be gated")
    parser.add_argument("--bypass", action="store_true", help="drills: publish although checks failed")
    chosen = parser.parse_args()
    settings, console = load_settings(), Console(highlight=False, soft_wrap=True)
    os.nice(5)
    try:
        with _alone(settings.work / "retrain", chosen.id):
            result = run(settings, chosen.id, console.print, chosen.given, chosen.bypass)
            forget_old(settings.published)
            _forget_jobs(settings, chosen.id)
    except (BadInput, Corrupt) as error:
        result = {"outcome": "refused", "reason": error.detail, "evidence": {}}
    except MinimartError as error:
        result = {"outcome": "failed", "reason": error.detail, "evidence": {}}
    staged = chosen.out.with_suffix(".part")
    staged.write_text(json.dumps(result, indent=2))
    staged.replace(chosen.out)
    console.print(f"{result['outcome']}: {result['reason']}")
    sys.exit({"passed": 0, "refused": REFUSED}.get(str(result["outcome"]), 1))


if __name__ == "__main__":
    main()
