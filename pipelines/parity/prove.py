"""The proof on one screen: draw, run under faults, ask everyone the same, compare with brute force, count records."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters import event_lake
from adapters.errors import Unavailable
from feature_repo import events
from feature_repo.plan import FeaturePlan
from pipelines.parity import faults, generate, readings
from pipelines.parity.brute_force import BruteForce
from pipelines.parity.compare import Comparison
from pipelines.parity.conservation import accounts, checksum
from pipelines.parity.engines import Engine, engine
from pipelines.parity.explain import explain
from pipelines.parity.faults import Play, Script
from pipelines.parity.generate import Act, Recipe, Stream
from pipelines.parity.payloads import SPOILED
from pipelines.parity.readings import Readings
from pipelines.parity.report import Outcome
from pipelines.parity.sample import Sample, choose_keys, choose_times
from pipelines.parity.sending import Sender, read_back
from pipelines.parity.servers import Servers, servers, stop

Tell = Callable[[str], None]
EXPLAINED: Final = 5
AFTER_ALL: Final = 33 * generate.DAY  # how long after the end windows are still looked at


@dataclass(frozen=True)
class Form:
    """How much is asked. `scripts` and `acts` belong together."""

    keys_per_view: int
    times_per_act: int
    acts: tuple[Act, ...]
    scripts: tuple[Script, ...]


LONG: Final = Form(36, 8, generate.LONG, faults.LONG)
SHORT: Final = Form(14, 7, generate.SHORT, faults.SHORT)


def prove(plan: FeaturePlan, *, events_wanted: int, seed: int, engine_name: str, python: str, form: Form, tell: Tell,
          folder: Path | None = None) -> Outcome:
    """Run it all on servers of its own. Raises Unavailable, Misconfigured when the run itself fails; what it left then
    stays in a folder that is named."""
    work = folder or Path(tempfile.mkdtemp(prefix="minimart-parity-"))
    clock = _Clock(tell)
    kind = engine(engine_name)
    with clock("drawing"):
        spoiled = tuple(name for name in SPOILED if name not in kind.accepts)
        recipe = Recipe(events_wanted, seed, int(time.time() * 1000), plan.topics, form.acts, spoiled=spoiled)
        stream = generate.draw(recipe)
        declared = json.loads(plan.dump())
        sample = choose_keys(declared, stream, form.keys_per_view, seed)
    tell("starting Kafka and Redis")
    try:
        with servers(work, plan, python) as own:
            outcome = _run(own, stream, sample, declared, engine_name, form, seed, clock)
    except BaseException:
        tell(f"what the run left is in {work}")
        raise
    if outcome.passed and folder is None:
        shutil.rmtree(work, ignore_errors=True)
    elif not outcome.passed:
        tell(f"what the run left is in {work}")
    return outcome


def _run(own: Servers, stream: Stream, sample: Sample, declared: dict[str, Any], engine_name: str, form: Form,
         seed: int, clock: _Clock) -> Outcome:
    rng = random.Random(seed)
    made: Engine = engine(engine_name)(own)
    sender = Sender(own.bootstrap, stream)
    play = Play(own, sender, rng, clock.tell)
    (own.home / "sample.json").write_text(json.dumps(sample))
    play.start_event_log()
    with clock("running"):
        if engine_name == "python":
            asked = _under_faults(own, stream, sample, made, play, form, seed)
        else:
            asked = _of_itself(own, stream, sample, made, sender, play, form, seed, clock)
        _wait_lake(own)
    outcomes, refused = made.outcomes(), made.refused()
    made.close()
    play.end()
    sender.close()
    brute, kafka = _brute_force(own, declared, sample, clock)
    comparison = _compare(own, brute, asked, clock)
    with clock("counting every record"):
        found = accounts(own, stream, kafka, brute.outcomes, outcomes)
    logged = sum(len(r.asked) for r in asked if "logged" in r.rows)
    return Outcome(engine_name, len(stream.payloads), seed, comparison, found,
                   [explain(brute, wrong) for wrong in comparison.mismatches[:EXPLAINED]], refused, made.accepts,
                   stream.planted, play.faults, play.timeline, clock.seconds, logged)


def _under_faults(own: Servers, stream: Stream, sample: Sample, made: Engine, play: Play, form: Form, seed: int
                  ) -> list[Readings]:
    """The acts one after another, a reader logging all the while; after each the stream is asked."""
    asked: list[Readings] = []
    reader = own.start_module("pipelines.parity.reader", "reader", str(own.home / "sample.json"), str(seed))
    for n, (script, until) in enumerate(zip(form.scripts, stream.acts, strict=True)):
        play.act(script, until)
        if n == 0:
            play.kill_event_log()
        asked += readings.from_engine("stream", made, own, sample, _times(stream, n, form, seed)).values()
    made.process(lambda text: None, play)
    stop(reader)
    return asked


def _of_itself(own: Servers, stream: Stream, sample: Sample, made: Engine, sender: Sender, play: Play, form: Form,
               seed: int, clock: _Clock) -> list[Readings]:
    """Everything sent, then processed by an engine that makes its own faults, and asked at the end."""
    sender.begin(len(stream.payloads))
    sender.finish(1_800)
    made.process(clock.tell, play)
    times = _times(stream, len(stream.acts) - 1, form, seed)
    return list(readings.from_engine("stream", made, own, sample, times).values())


def _times(stream: Stream, act: int, form: Form, seed: int) -> list[int]:
    """Times after all that has arrived up to an act, and before what arrives next."""
    arrivals = stream.arrivals
    first = max(arrivals[:stream.acts[act]])
    later = arrivals[stream.acts[act]:]
    last = min(later) - 1 if later else first + AFTER_ALL
    return choose_times(first, last, form.times_per_act, np.random.default_rng([seed, 2, act]))


def _wait_lake(own: Servers, seconds: float = 120) -> None:
    """Wait until the lake holds what is in Kafka. Raises Unavailable."""
    topics = (*own.plan.topics, events.DECISIONS)
    ends = own.ends(topics)
    deadline = time.monotonic() + seconds
    while behind := [(t, p) for (t, p), end in ends.items() if event_lake.contiguous_ends(own.lake, t).get(p, 0) < end]:
        if time.monotonic() > deadline:
            raise Unavailable(f"after {seconds:.0f} s the lake is behind in {behind[:4]}; see {own.home}")
        time.sleep(0.5)


def _brute_force(own: Servers, declared: dict[str, Any], sample: Sample, clock: _Clock
                 ) -> tuple[BruteForce, dict[str, tuple[int, int]]]:
    """Everything back out of Kafka, and what brute force makes of it."""
    brute = BruteForce(declared, sample)
    kafka: dict[str, tuple[int, int]] = {}
    with clock("brute force"):
        for topic in own.plan.topics:
            count = total = 0
            for partition, records in read_back(own.bootstrap, topic):
                brute.read(topic, partition, records)
                more = checksum(payload for _, _, payload in records)
                count, total = count + more[0], total + more[1]
            kafka[topic] = count, total
            clock.tell(f"{topic}: {count:,} records read back")
    return brute, kafka


def _compare(own: Servers, brute: BruteForce, asked: list[Readings], clock: _Clock) -> Comparison:
    """Ask the lake what the stream was asked, add what was logged, and compare all with brute force."""
    with clock("offline SQL"):
        by_view: dict[str, list[Readings]] = {}
        for part in asked:
            by_view.setdefault(part.asked[0].view, []).append(part)
        for view, parts in by_view.items():
            rows = iter(readings.from_sql(own, view, [one for part in parts for one in part.asked]))
            for part in parts:
                part.rows["sql"] = [next(rows) for _ in part.asked]
    asked += readings.logged(own).values()
    comparison = Comparison(brute)
    total = sum(len(part.asked) for part in asked)
    with clock("comparing"):
        every = max(1, total // 10)
        for part in asked:
            for _ in comparison.compare(part.asked, part.rows):
                if comparison.questions % every == 0:
                    clock.tell(f"{comparison.questions:,} of {total:,} questions, {comparison.checks:,} comparisons, "
                               f"{comparison.wrong} wrong")
    return comparison


class _Clock:
    """Tells and keeps how long each stage took."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self.tell(stage)
        began = time.monotonic()
        yield
        self.seconds[stage] = round(time.monotonic() - began, 1)
