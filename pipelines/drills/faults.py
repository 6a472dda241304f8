"""What the alarm drill breaks: each fault lasts as long as its `with` block, and is put back at its end.

A block yields what to do again and again while the fault lasts. Parts are ended, frozen (SIGSTOP), fed with garbage or
flooded. What takes hours to come about by itself is planted where the program that finds it writes it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from adapters.bundles import load_bundle, put_file
from adapters.errors import Unavailable
from adapters.pointers import ROLLOUT
from models.drift.base import Level
from models.marketplace.world import item_id
from pipelines import contract_report, drift_report
from pipelines.drills.alarm_watch import Watch
from pipelines.drills.challengers import SIX
from pipelines.drills.report import now_ms
from pipelines.drills.sabotage import send
from pipelines.drills.scene import Scene
from pipelines.stack.supervisor import MARK, Supervisor

Tick = Callable[[], None]
Cause = Callable[[Scene, Watch], AbstractContextManager[Tick]]
READY_S: Final = 60.0
PAUSE_S: Final = 0.6
FLOOD: Final = 25_000
BATCH: Final = 1000
HOURS_AGO_MS: Final = 3 * 3_600_000
GARBAGE: Final = b"this is no file of its kind\n"


@dataclass(frozen=True)
class Fault:
    """One thing that breaks, and the alerts that must call it out. `planted`: only its traces are made."""

    what: str
    alerts: tuple[str, ...]
    cause: Cause
    planted: bool = False


def nothing() -> None:
    """Nothing to do while the fault lasts."""


@contextlib.contextmanager
def refused(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """A challenger whose scores are NaN, through the front door."""
    _challenger(stage, "NaN scores", bypass=False)
    yield nothing


@contextlib.contextmanager
def around_the_gate(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """A challenger that is slow, around the gate."""
    _challenger(stage, "slow", bypass=True)
    yield nothing


def _challenger(stage: Scene, kind: str, *, bypass: bool) -> None:
    bad = next(one for one in SIX if one.kind == kind)
    champion = load_bundle(stage.settings.published / "ranker" / stage.champion()["ranker"])
    send(stage, bad, champion, f"alarm-{now_ms() % 10**6}", bypass=bypass)


@contextlib.contextmanager
def killed_training(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """Every attempt at training is killed."""
    stage.settle()
    stage.insist("retrain", "a training that will be killed")

    def kill() -> None:
        for process in _with_words(stage, "pipelines.retrain"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    yield kill
    stage.settle()


@contextlib.contextmanager
def garbled_pointer(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """The file that says which challenger is served cannot be read."""
    stage.settle()
    path = stage.settings.published / ROLLOUT
    was = path.read_bytes()
    put_file(path, GARBAGE)
    try:
        yield nothing
    finally:
        put_file(path, was)


@contextlib.contextmanager
def bad_event(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """A click with a place but no feed: its schema, but not its contract."""
    click = {"type": "product_clicked", "item_id": _any_item(stage), "category": "none",
             "price_cents": 1, "position": 3}  # fmt: skip
    _send(stage, [_event("click", 0) | click], answer=422)
    yield nothing


@contextlib.contextmanager
def garbled_metrics(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """A program leaves a file of metrics that nobody can read."""
    with _planted(stage.settings.metrics / "zz-drill.prom", GARBAGE):
        yield nothing


def drift_level(level: int, *, hours_ago: bool = False) -> Cause:
    """The last drift check found so much (1 warn, 2 drift), or was hours ago."""

    @contextlib.contextmanager
    def cause(stage: Scene, _watch: Watch) -> Iterator[Tick]:
        at_ms = now_ms() - (HOURS_AGO_MS if hours_ago else 0)
        psi = {"name": "price", "psi": 0.15 * level, "ks": None, "wasserstein": None, "js": None, "null_share": 0.0}
        word = Level(level).name
        document = {"kinds": {"data": word, "label": "healthy"}, "features": [psi], "at_ms": at_ms, "asked": 1000,
                    "performance": None}  # fmt: skip
        path = stage.settings.metrics / "drift.prom"
        with _planted(path):
            yield lambda: drift_report.gauges(document, path)

    return cause


@contextlib.contextmanager
def broken_contract(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """The last check of the contracts found clicks that break theirs."""
    finding = {"kind": "quality", "level": "broken"}
    document = {"contracts": [{"name": "shop.clicks", "bad_rows": 9, "findings": [finding]}], "at_ms": now_ms()}
    path = stage.settings.metrics / "contracts.prom"
    with _planted(path):
        contract_report.gauges(document, path)
        yield nothing


@contextlib.contextmanager
def volume_off(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """An hour of clicks with a third of what the hours before it let expect."""
    gauges = {"hour_records": 1000, "hour_expected_records": 3000, "volume_level": 1}
    lines = "".join(f'minimart_topic_{name}{{topic="shop.clicks"}} {value}\n' for name, value in gauges.items())
    with _planted(stage.settings.metrics / "zz-drill.prom", lines.encode()):
        yield nothing


@contextlib.contextmanager
def silence(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """Clicks, carts, orders and payments stop coming."""
    stage.inject({"silence": 1.0})
    try:
        yield nothing
    finally:
        stage.inject({})


@contextlib.contextmanager
def stutter(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """The recommender stands still for more than half a second, again and again."""

    def once() -> None:
        with _frozen(_with_words(stage, "services.recommender")):
            time.sleep(PAUSE_S)

    yield once


@contextlib.contextmanager
def standstill(stage: Scene, _watch: Watch) -> Iterator[Tick]:
    """The online store and the analytical store stand still while 25,000 payments come in and questions are asked."""
    asked = {"features": ["user_activity"], "entities": {"user_id": ["u00001", "u00002", "u00003"]}}
    order = {"reason": "nothing is there to be taken back", "actor": "drill"}  # it is refused, or without a lease fails
    address = stage.settings.url
    with httpx.Client(timeout=2, trust_env=False) as http:

        def ask() -> None:
            for _ in range(5):
                with contextlib.suppress(httpx.HTTPError):
                    http.post(f"{address('feature_server')}/v1/features", json=asked)
                    http.post(f"{address('controller')}/v1/rollout/rollback", json=order)

        ask()  # what was read once can be answered from memory
        with _frozen([*_of_part(stage, "redis"), *_of_part(stage, "clickhouse")]):
            for first in range(0, FLOOD, BATCH):
                _send(stage, [_payment(number) for number in range(first, first + BATCH)])
            yield ask
    for part in ("recommender", "controller", "feature_server", "stream_features"):
        stage.neighbours.wait_ready(part, READY_S)


@contextlib.contextmanager
def ended(stage: Scene, *parts: str) -> Iterator[Tick]:
    """Within: these parts do not run."""
    supervisor = Supervisor(stage.settings.home)
    try:
        for part in parts:
            supervisor.stop_part(part)
        yield nothing
    finally:
        for part in parts:
            supervisor.start_part(part)
    for part in parts:
        stage.neighbours.wait_ready(part, READY_S)


def part_ended(stage: Scene, _watch: Watch) -> AbstractContextManager[Tick]:
    """A part ends and stays away."""
    return ended(stage, "simulator")


@contextlib.contextmanager
def address_gone(stage: Scene, watch: Watch) -> Iterator[Tick]:
    """A part ends, and its address with it, as a container's does."""
    with ended(stage, "simulator"):
        watch.forget("simulator")
        yield nothing
    watch.forget()


def untold(stage: Scene, _watch: Watch) -> AbstractContextManager[Tick]:
    """Who writes incidents down ends, and a part of which there is something to tell."""
    return ended(stage, "monitor", "simulator")


FAULTS: Final = (
    Fault("a challenger whose scores are NaN", ("ModelRefused",), refused),
    Fault("a slow challenger around the gate", ("ModelUngated", "CanaryGuardrailBreached", "RolloutRolledBack"),
          around_the_gate),
    Fault("a training that is killed whenever it starts", ("RetrainFailed",), killed_training),
    Fault("a pointer to the challenger that cannot be read", ("BundleRefused",), garbled_pointer),
    Fault("a click that breaks its contract", ("DeadLetters",), bad_event),
    Fault("a file of metrics that cannot be read", ("MetricsFileBad",), garbled_metrics),
    Fault("clicks, carts, orders and payments fall silent", ("TopicStale",), silence),
    Fault("the recommender stands still for 0.6 s, again and again", ("RecommendationsSlow",), stutter),
    Fault("Redis and ClickHouse stand still while 25,000 payments come",
          ("AnswersDegraded", "FeatureRowsStale", "ErrorRateHigh", "NobodyLeads", "ConsumerLagging", "AnalyticsLagging",
           "FeaturesStale"), standstill),
    Fault("a part ends and stays away", ("PartDown", "IncidentOpenLong"), part_ended),
    Fault("a part ends, and its address with it", ("PartGone",), address_gone),
    Fault("nobody is there to be told that a part has ended", ("AlertsNotTold",), untold),
    Fault("a drift check that warns", ("DriftWarning",), drift_level(1), planted=True),
    Fault("a drift check that finds drift", ("DriftDetected",), drift_level(2), planted=True),
    Fault("the last drift check is three hours old", ("DriftCheckMissing",), drift_level(0, hours_ago=True),
          planted=True),
    Fault("a check finds clicks that break their contract", ("ContractBroken",), broken_contract, planted=True),
    Fault("an hour with a third of the usual clicks", ("TopicVolumeOff",), volume_off, planted=True),
)  # fmt: skip


@contextlib.contextmanager
def _planted(path: Path, content: bytes = b"") -> Iterator[None]:
    """Within: `content` lies at `path`, or whatever is put there; what lay there before lies there afterwards."""
    was = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    if content:
        put_file(path, content)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if was is not None:
            put_file(path, was)


@contextlib.contextmanager
def _frozen(processes: list[psutil.Process]) -> Iterator[None]:
    """Within: these processes stand still. Raises psutil.Error where one is not ours to stop."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def _of_part(stage: Scene, part: str) -> list[psutil.Process]:
    """The processes of a supervised part."""
    first = psutil.Process(Supervisor(stage.settings.home).processes()[part].pid)
    return [first, *first.children(recursive=True)]


def _with_words(stage: Scene, words: str) -> list[psutil.Process]:
    """This platform's processes whose command line has these words, and what they started: also a drill's own."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if words in process.cmdline() and process.environ().get(MARK) == str(stage.settings.home):
                found |= {one.pid: one for one in [process, *process.children(recursive=True)]}
    return [one for pid, one in found.items() if pid != os.getpid()]


def _send(stage: Scene, events: list[Mapping[str, Any]], *, answer: int = 202) -> None:
    """To the collector. Raises Unavailable where it answers otherwise."""
    said = stage.neighbours.http.post(f"{stage.settings.url('collector')}/v1/events", json=events, timeout=30)
    if said.status_code != answer:
        raise Unavailable(f"the collector answers {said.status_code}, not {answer}: {said.text[:200]}")


def _event(kind: str, number: int) -> dict[str, Any]:
    at_ms = now_ms()
    return {"event_id": f"drill-{kind}-{at_ms}-{number}", "event_time": at_ms, "user_id": f"drill-user-{number % 97}"}


def _payment(number: int) -> Mapping[str, Any]:
    """Of shoppers and cards that nobody else has."""
    ids = {"payment_id": f"drill-payment-{number}", "order_id": f"drill-order-{number}",
           "merchant_id": "drill-merchant", "card_id": f"drill-card-{number % 97}"}  # fmt: skip
    return _event("payment", number) | ids | {"type": "payment_made", "amount_cents": 100}


def _any_item(stage: Scene) -> str:
    """An item that is in the catalogue."""
    return item_id(next(a.items[0] for a in reversed(stage.shoppers.since(0)) if a.items))
