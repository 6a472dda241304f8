"""Named places at which a process under test ends as by kill -9. Without a name nothing ever ends."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable


def crash_at(wanted: str) -> Callable[[str], None]:
    """A function that ends the process, as kill -9 would, at `point` or on the nth pass of `point:n`; empty: never."""
    point, _, nth = wanted.partition(":")
    passed: Counter[str] = Counter()

    def at(here: str) -> None:
        passed[here] += 1
        if here == point and passed[here] >= int(nth or 1):
            os._exit(137)

    return at
