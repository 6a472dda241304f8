"""What several forms of a model take for the same rows, all in turn, so that a noisy second meets every form."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

WARM_UPS = 5


class Runs(Protocol):
    """A model that can be asked as an ONNX Runtime session is."""

    def run(self, names: None, feed: Mapping[str, NDArray[Any]], /) -> Any: ...


def in_turns(
    forms: Mapping[str, Runs], inputs: Mapping[str, NDArray[Any]], rows: int, rounds: int
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of every run with so many of the inputs' rows; a round runs each once, a few more warm up."""
    size = len(next(iter(inputs.values())))
    took: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + WARM_UPS):
        at = number * rows % max(1, size - rows)
        feed = {name: values[at : at + rows] for name, values in inputs.items()}
        for name, form in forms.items():
            began = time.perf_counter()
            form.run(None, feed)
            if number >= WARM_UPS:
                took[name].append(1e3 * (time.perf_counter() - began))
    return {name: np.array(ms) for name, ms in took.items()}
