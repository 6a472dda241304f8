from __future__ import annotations

import pytest

from adapters.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_after_failures_in_a_row_and_one_trial_closes_it() -> None:
    clock = Clock()
    breaker = Breaker(threshold=3, rest_s=1.0, clock=clock)
    for _ in range(2):
        assert breaker.allows()
        breaker.failed()
    breaker.succeeded()
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    assert breaker.is_open
    assert not breaker.allows()
    clock.now = 1.1
    assert breaker.allows()
    assert not breaker.allows(), "one trial at a time"
    breaker.failed()
    assert not breaker.allows()
    clock.now = 2.2
    assert breaker.allows()
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.allows()


def test_a_hiccup_is_soon_over_and_what_is_dead_is_left_alone() -> None:
    clock = Clock()
    breaker = Breaker(threshold=3, rest_s=1.0, clock=clock)
    for _ in range(6):
        breaker.failed()  # all that were under way fail at once, which is one failure and not four
    rests = []
    for _ in range(5):
        began = clock.now
        while not breaker.allows():
            clock.now += 0.005
        rests.append(round(clock.now - began, 2))
        breaker.failed()
    assert rests == pytest.approx([0.125, 0.25, 0.5, 1.0, 1.0], abs=0.01)
    clock.now += 1.0
    assert breaker.allows()
    breaker.succeeded()
    for _ in range(3):
        breaker.failed()
    clock.now += 0.13
    assert breaker.allows(), "after a success the next rest is a short one again"


@pytest.mark.parametrize(("threshold", "rest_s"), [(0, 1.0), (1, 0.0)])
def test_nonsense_is_refused(threshold: int, rest_s: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        Breaker(threshold=threshold, rest_s=rest_s)
