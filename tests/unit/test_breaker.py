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


@pytest.mark.parametrize(("threshold", "rest_s"), [(0, 1.0), (1, 0.0)])
def test_nonsense_is_refused(threshold: int, rest_s: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        Breaker(threshold=threshold, rest_s=rest_s)
