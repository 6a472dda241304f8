"""The compiled SQL on a real Flink beside real Kafka and Redis: killed on its way, every window equals brute force."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import redis

from adapters.errors import Unavailable
from feature_repo.flink_sql import topic_of
from feature_repo.plan import FeaturePlan
from pipelines.flink import gateway
from pipelines.flink.parity_engine import FlinkEngine
from pipelines.flink.serve import TileSink
from pipelines.parity import generate, readings
from pipelines.parity.brute_force import BruteForce
from pipelines.parity.compare import Comparison
from pipelines.parity.generate import Recipe, Stream
from pipelines.parity.payloads import SPOILED
from pipelines.parity.sample import Sample, choose_keys, choose_times
from pipelines.parity.sending import Sender, read_back
from pipelines.parity.servers import Servers, servers
from settings import ROOT

EVENTS, SEED = 6_000, 11
pytestmark = pytest.mark.skipif(
    not os.environ.get("MINIMART_TEST_FLINK"),
    reason="minutes, 149 MB of jars and 2 GB for Flink: MINIMART_TEST_FLINK=1 runs it",
)
PLAN = FeaturePlan.load(ROOT / "tests" / "plan.json")
DECLARED = json.loads(PLAN.dump())


class Seen:
    """The report's witness: says what it hears."""

    def note(self, what: str) -> None:
        print(what)

    def came(self, committed: int) -> None:
        assert 0 <= committed <= EVENTS


@pytest.fixture(scope="module")
def stream() -> Stream:
    spoiled = tuple(name for name in SPOILED if name not in FlinkEngine.accepts)
    return generate.draw(Recipe(EVENTS, SEED, int(time.time() * 1000), PLAN.topics, generate.SHORT, spoiled=spoiled))


@pytest.fixture(scope="module")
def sample(stream: Stream) -> Sample:
    return choose_keys(DECLARED, stream, 10, SEED)


@pytest.fixture(scope="module")
def own(stream: Stream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers with the whole stream in Kafka."""
    try:
        gateway.install()
    except Unavailable as reason:
        pytest.skip(reason.detail)  # the registry of jars cannot be reached from here
    with servers(tmp_path_factory.mktemp("flink") / "run", PLAN, sys.executable, heap_mb=256, redis_mb=512) as found:
        sender = Sender(found.bootstrap, stream)
        sender.begin(len(stream.payloads))
        sender.finish(300)
        sender.close()
        yield found


@pytest.fixture(scope="module")
def engine(own: Servers) -> FlinkEngine:
    made = FlinkEngine(own)
    made.process(print, Seen())
    return made


def test_every_window_equals_brute_force_although_flink_was_killed(own: Servers, engine: FlinkEngine, stream: Stream,
                                                                   sample: Sample) -> None:
    assert engine.killed
    assert engine.refused() == {}
    last = max(stream.arrivals)
    times = choose_times(last, last + 33 * generate.DAY, 6, np.random.default_rng(SEED))
    asked = list(readings.from_engine("stream", engine, own, sample, times).values())
    brute = BruteForce(DECLARED, sample)
    for topic in PLAN.topics:
        for partition, records in read_back(own.bootstrap, topic):
            brute.read(topic, partition, records)
    comparison = Comparison(brute)
    for part in asked:
        for _ in comparison.compare(part.asked, part.rows):
            pass
    assert comparison.wrong == 0, comparison.mismatches[:3]
    assert set(comparison.tallies) == {(v.name, f.function, f.window) for v in PLAN.declared_views for f in v.declared}
    assert comparison.checks > 3_000


def test_the_sink_goes_on_where_it_stood_and_fills_an_emptied_redis(own: Servers, engine: FlinkEngine, stream: Stream,
                                                                     sample: Sample) -> None:
    now = max(stream.arrivals)
    before = {view: engine.read(view, keys, [now])[0] for view, keys in sample.items()}
    state = own.state
    sink = TileSink(PLAN, state, own.bootstrap, topic_of(PLAN))
    assert sink.run(threading.Event(), print, to_end=True) == 0  # all of it was committed before
    redis.Redis.from_url(own.redis_url).flushall()
    assert sink.run(threading.Event(), print, to_end=True) > EVENTS
    state.close()
    for view, keys in sample.items():
        after = engine.read(view, keys, [now])[0]
        for name, column in before[view].items():
            np.testing.assert_array_equal(after[name], column, err_msg=name)
