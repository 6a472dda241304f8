"""Is it drift? Compares the newest window of live traffic with a baseline, and says what moved and of which kind.

    python -m pipelines.check_drift --window 1h --baseline last_healthy

Exit status: 0 healthy or too little data to say, 1 worth a look, 2 drift, 3 the analytical store cannot be asked.
The report goes to `home/drift`, to the topic `drift.reports`, to MLflow (with a page to look at) and to Prometheus.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from adapters.analytics import Store, open_store
from adapters.errors import MinimartError
from adapters.kafka import KafkaPublisher
from feature_repo.events import DRIFT_REPORTS
from models.drift.base import Level
from models.drift.baseline import Baseline
from models.drift.suite import Finding, inspect
from models.drift.traffic import Traffic
from models.drift.verdict import decide
from models.drift.watched import PERSISTENCE
from models.performance_estimate import TruedUp, estimate, realised, true_up
from pipelines import drift_baselines as baselines
from pipelines.drift_report import MODEL, gauges, report, show, span
from pipelines.drift_traffic import SAMPLE, Versions, read, served
from pipelines.durations import seconds
from pipelines.file_drift import Papers, file, file_later
from settings import Settings, load_settings

EXIT: Final = {Level.INSUFFICIENT_DATA: 0, Level.HEALTHY: 0, Level.WARN: 1, Level.DRIFT: 2}
UNANSWERED: Final = 3
KEPT: Final = 500
RECORD_EVERY_MS: Final = 15 * 60_000
RECORD_LEAST_MS: Final = 60_000


@dataclass(frozen=True)
class Ask:
    """One check. `now_ms`: the window ends `settle_ms` before it, when its clicks are in."""

    window_ms: int
    baseline: baselines.Source
    now_ms: int
    settle_ms: int
    persistence: int = PERSISTENCE
    sample: int = SAMPLE
    mark_healthy: bool = False

    @property
    def until_ms(self) -> int:
        return self.now_ms - self.settle_ms


@dataclass(frozen=True)
class Checked:
    """A report and what it was made of; `reference` is None where there was nothing to compare with."""

    document: dict[str, Any]
    reference: Baseline | None
    traffic: Traffic


def check(store: Store, settings: Settings, ask: Ask) -> Checked:
    """Read, compare, decide, and keep the healthy window up to date. Raises what the store raises."""
    until, window = ask.until_ms, ask.window_ms
    healthy = baselines.Healthy(settings.home / "drift")
    versions = served(store, until - max(baselines.WIDEST, ask.persistence) * window, until)
    if not versions.requests:
        versions = healthy.versions() or versions
    spans = [(until - (i + 1) * window, until - i * window) for i in range(ask.persistence)]
    windows = [read(store, versions, *s, settle_ms=ask.settle_ms, sample=ask.sample) for s in spans]
    reference, notes = _reference(store, settings, ask, versions, healthy)
    verdict = decide([])
    performance = None
    if reference is not None:
        same_hour = ask.baseline == "same_hour_last_week"
        findings: list[Sequence[Finding]] = [inspect(reference, w, same_hour=same_hour) for w in windows]
        verdict = decide(_comparable(findings, windows), persistence=ask.persistence)
        performance = _performance(reference, windows[0])
    well = not notes and verdict.level == Level.HEALTHY and ask.baseline == "last_healthy"
    if well and reference is not None and baselines.due(reference, window, until):
        healthy.keep(baselines.recent(store, versions, window, until, ask.settle_ms))
    source = {"source": ask.baseline, **({} if reference is None else dict(reference.meta))}
    document = report(
        verdict, windows[0], at_ms=ask.now_ms, baseline=source, reasons=notes, performance=performance
    )
    return Checked(document, reference, windows[0])


def _reference(
    store: Store, settings: Settings, ask: Ask, versions: Versions, healthy: baselines.Healthy
) -> tuple[Baseline | None, tuple[str, ...]]:
    """The baseline, and what is to be said about it."""
    if ask.baseline == "training":
        found = baselines.of_training(settings.published)
        return found, () if found else ("the serving ranker brought no baseline.json",)
    if ask.baseline == "same_hour_last_week":
        found = baselines.of_last_week(store, versions, ask.window_ms, ask.until_ms, ask.settle_ms)
        return found, () if found else ("no comparable traffic a week ago under the serving versions",)
    found = None if ask.mark_healthy else healthy.load(versions)
    if found is not None:
        return found, ()
    found = healthy.keep(baselines.recent(store, versions, ask.window_ms, ask.until_ms, ask.settle_ms))
    if found is None:
        least = f"at least {baselines.LEAST_REQUESTS} requests and {baselines.LEAST_CLICKS} clicks are needed"
        return None, (f"no healthy window yet of ranker {versions.ranker or 'none'}: {least}",)
    return found, (f"{found.requests} requests of ranker {versions.ranker} are now the healthy window",)


def _comparable(findings: Sequence[Sequence[Finding]], windows: Sequence[Traffic]) -> list[Sequence[Finding]]:
    """The newest windows up to the first that was empty: nothing agrees with a window that does not exist."""
    kept: list[Sequence[Finding]] = [findings[0]]
    for found, window in zip(findings[1:], windows[1:], strict=True):
        if not window.requests:
            break
        kept.append(found)
    return kept


def _performance(reference: Baseline, traffic: Traffic) -> TruedUp | None:
    """The estimate that needs no labels, beside the labels."""
    model = reference.click_model
    if model is None or not len(traffic.scores):
        return None
    if reference.meta.get("ranker_version") != traffic.meta["ranker_version"]:
        return None
    promised = estimate(model, traffic.scores, traffic.positions, traffic.request)
    came = realised(model, traffic.scores, traffic.positions, traffic.request, traffic.clicked)
    return true_up(promised, came, traffic.requests)


def keep(checked: Checked, settings: Settings, out: Path | None) -> None:
    """Write the report to files and gauges."""
    folder, text = settings.home / "drift", json.dumps(checked.document, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / f"{checked.document['id']}.json", folder / "latest.json", *([out] if out else [])):
        scratch = path.with_suffix(".part")
        scratch.write_text(text)
        scratch.replace(path)
    for old in sorted(folder.glob("drift-*.json"))[:-KEPT]:  # the store and MLflow have them for longer
        old.unlink(missing_ok=True)
    gauges(checked.document, settings.metrics / "drift.prom")


def worth_recording(document: Mapping[str, Any], settings: Settings) -> bool:
    """Whether this report says something that the one before did not, or the last recorded one is old.

    A verdict that goes back and forth is recorded once a minute; drift after something else always.
    """
    last = _last(settings)
    age = document["at_ms"] - last.get("recorded_ms", 0)
    if document["verdict"] == "drift" != last.get("verdict") or age > RECORD_EVERY_MS:
        return True
    changed = document["verdict"] != last.get("verdict") or document["kinds"] != last.get("kinds")
    return bool(changed and age > RECORD_LEAST_MS)


def _last(settings: Settings) -> dict[str, Any]:
    try:
        found = json.loads((settings.home / "drift" / "latest.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def send(document: Mapping[str, Any], settings: Settings) -> None:
    """Publish the report. Raises Unavailable when Kafka does not take it."""
    publisher = KafkaPublisher(settings.kafka, client_id="check_drift")
    try:
        publisher.publish(DRIFT_REPORTS, MODEL, json.dumps(document).encode(), timestamp_ms=document["at_ms"])
        publisher.flush(10.0)
    finally:
        publisher.close()


def parse(arguments: Sequence[str] | None, settings: Settings) -> tuple[argparse.Namespace, Ask]:
    parser = argparse.ArgumentParser(prog="check_drift", description=__doc__.split("\n")[0])
    parser.add_argument("--window", type=seconds, default=3600, metavar="1h")
    parser.add_argument("--baseline", choices=baselines.SOURCES, default="last_healthy")
    parser.add_argument("--now-ms", type=int, default=None, help="look from this moment instead of now")
    parser.add_argument("--settle", type=seconds, default=None, help="how long to wait for clicks")
    parser.add_argument("--persistence", type=int, default=PERSISTENCE, help="windows in a row that must agree")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="requests read per window")
    parser.add_argument("--mark-healthy", action="store_true", help="make the newest traffic the healthy window")
    when = "the MLflow run: by itself when the verdict changes, or every quarter of an hour"
    parser.add_argument("--record", choices=("auto", "always", "never"), default="auto", help=when)
    parser.add_argument("--no-mlflow", dest="record", action="store_const", const="never", help="as --record never")
    parser.add_argument("--no-html", action="store_true", help="leave out the page for MLflow")
    parser.add_argument("--no-kafka", action="store_true", help="do not publish the report")
    parser.add_argument("--quiet", action="store_true", help="print the verdict's line only")
    parser.add_argument("--out", type=Path, default=None, help="write the report here as well")
    given = parser.parse_args(arguments)
    now = int(time.time() * 1000) if given.now_ms is None else given.now_ms
    settle = settings.drift_settle_s if given.settle is None else given.settle
    ask = Ask(given.window * 1000, given.baseline, now, int(settle * 1000), max(1, given.persistence), given.sample,
              given.mark_healthy)  # fmt: skip
    return given, ask


def main(arguments: Sequence[str] | None = None) -> int:
    """One check; the exit status says what it found."""
    settings = load_settings()
    given, ask = parse(arguments, settings)
    try:
        checked = check(open_store(settings), settings, ask)
    except MinimartError as error:
        print(f"check_drift: {error.detail}", file=sys.stderr)
        return UNANSWERED
    document = checked.document
    recorded = given.record == "always" or (given.record == "auto" and worth_recording(document, settings))
    document["recorded_ms"] = ask.now_ms if recorded else _last(settings).get("recorded_ms", 0)
    keep(checked, settings, given.out)
    # A report that cannot be sent or filed is still a report: what failed is said, the verdict stands.
    if not given.no_kafka:
        _attempt("Kafka", lambda: send(document, settings))
    page = not given.no_html and (given.record == "always" or document["verdict"] in ("warn", "drift"))
    if recorded and given.record == "always":
        _attempt("MLflow", lambda: file(_papers(checked, page=page), settings))
    elif recorded:
        file_later(_papers(checked, page=page), settings)
    if given.quiet:
        print(f"{document['verdict']} {span(document['window']['seconds'])} {document['id']}")
    else:
        show(document, Console(width=160 if not sys.stdout.isatty() else None))
    return EXIT[Level[document["verdict"].upper()]]


def _papers(checked: Checked, *, page: bool) -> Papers:
    if not page or checked.reference is None or not checked.traffic.requests:
        return Papers(checked.document, None, None)
    return Papers(checked.document, checked.reference, checked.traffic.baseline())


def _attempt(where: str, act: Callable[[], None]) -> None:
    try:
        act()
    except MinimartError as error:
        print(f"check_drift: the report did not reach {where}: {error.detail.splitlines()[0]}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
