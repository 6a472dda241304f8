"""The two planted bugs that lie in the commit, on a real Redis: a state not written, the offset before the state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from adapters.feature_state import Batch, FeatureState
from tests.unit.parity_in_memory import Crash, Verdict, count, drawn, judge, load_plan, logs

PLAN = load_plan()
STREAM = drawn(PLAN, 1_500)
CRASHES = frozenset({3, 9, 16, 24, 33})


class Killed(FeatureState):
    """The sound store; its worker dies before some commits."""

    commits = 0

    def commit(self, batches: list[Batch], now_ms: int) -> None:
        self.commits += 1
        if self.commits in CRASHES:
            raise Crash
        super().commit(batches, now_ms)


class Forgetful(Killed):
    """Now and then a state is not written, while the offsets move on."""

    def commit(self, batches: list[Batch], now_ms: int) -> None:
        super().commit([replace(b, states={key: packed for n, (key, packed) in enumerate(b.states.items())
                                           if (n + self.commits) % 25}) for b in batches], now_ms)


class OffsetFirst(FeatureState):
    """Not one transaction: a worker that dies in between has moved on and counted nothing."""

    commits = 0

    def commit(self, batches: list[Batch], now_ms: int) -> None:
        self.commits += 1
        super().commit([replace(b, states={}) for b in batches], now_ms)
        if self.commits in CRASHES:
            raise Crash
        self.put({key: packed for b in batches for key, packed in b.states.items()}, now_ms)


def proof(redis_url: str, kind: type[FeatureState]) -> Verdict:
    own = redis_url.rsplit("/", 1)[0] + "/9"
    redis.Redis.from_url(own).flushdb()
    store, log = kind(own, PLAN), logs(STREAM)
    try:
        count(PLAN, log, store)
        return judge(PLAN, STREAM, log, store)
    finally:
        store.close()


def test_the_sound_store_is_equal_to_brute_force(redis_url: str) -> None:
    verdict = proof(redis_url, Killed)
    assert not verdict.explained, verdict.text
    assert not verdict.outcomes


@pytest.mark.parametrize("kind", [Forgetful, OffsetFirst])
def test_a_commit_that_is_not_one_step_is_caught(redis_url: str, kind: type[FeatureState]) -> None:
    verdict = proof(redis_url, kind)
    assert verdict.comparison.wrong
    assert "not to be counted" in verdict.text
    assert not verdict.outcomes
