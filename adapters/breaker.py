"""A circuit breaker: after a few failures in a row a neighbour is left alone for a while, then one call may try again.

Knows no network and no clock of its own: whoever calls says what happened. Not a limiter and not a retry.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed (calls pass), open (none pass), half open (one call tries; its outcome closes or opens again).

    Opens after `threshold` failures in a row: for an eighth of `rest_s` seconds at first, then twice as long after each
    trial that fails, `rest_s` at most. A hiccup, which fails all calls under way at once, is soon over; what is dead is
    left alone. Not for several threads.
    """

    def __init__(
        self, *, threshold: int = 3, rest_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if threshold < 1 or rest_s <= 0:
            raise ValueError(f"threshold {threshold} must be at least 1 and rest_s {rest_s} above 0")
        self._threshold, self._rest_s, self._clock = threshold, rest_s, clock
        self._failures = 0
        self._open_until = 0.0
        self._rest_now_s = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        return self._failures >= self._threshold

    def allows(self) -> bool:
        """Whether a call may be made now. While open it lets one through per rest, as the trial."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._open_until:
            return False
        self._open_until, self._trying = now + self._rest_now_s, True
        return True

    def succeeded(self) -> None:
        self._failures, self._trying = 0, False

    def failed(self) -> None:
        self._failures += 1
        if self._failures == self._threshold:
            self._rest_now_s = self._rest_s / 8
        elif self._trying:
            self._rest_now_s = min(2 * self._rest_now_s, self._rest_s)
        elif self.is_open:
            return  # it was under way when the breaker opened
        if self.is_open:
            self._open_until, self._trying = self._clock() + self._rest_now_s, False
