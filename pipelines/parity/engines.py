"""What may turn the topics of Kafka into windows, and be held to brute force: the Python stream worker, or Flink."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from adapters.errors import Misconfigured
from pipelines.parity import packed
from pipelines.parity.servers import Servers

Key = tuple[str, ...]
Tell = Callable[[str], None]


class Witness(Protocol):
    """Keeps what happens in a run, for its report."""

    def note(self, what: str) -> None:
        """A fault, and how far the run has come by then."""

    def came(self, committed: int) -> None:
        """So many records are done."""


class Engine(Protocol):
    """Made as `Engine(servers)`. `process` is called once, after everything was sent."""

    accepts: ClassVar[Mapping[str, str]]
    """Kinds of poison (`payloads.SPOILED`) that it takes for events, and why: they are not drawn for it."""

    def refused(self) -> Mapping[str, str]:
        """Feature -> why this engine cannot compute it; every other feature is compared."""

    def process(self, tell: Tell, witness: Witness) -> None:
        """Return when every record that is in Kafka now is in the answers of `read`. Raises Unavailable."""

    def read(self, view: str, keys: Sequence[Key], times: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Per time (none before the last arrival): feature -> column [len(keys)], as `tiles.columns` gives them."""

    def outcomes(self) -> Mapping[str, int] | None:
        """`<topic>:<outcome>` -> records; None where the engine does not count them."""

    def close(self) -> None:
        """End what was started."""


class PythonEngine:
    """The stream worker's tiles in Redis, through the packed reader of serving."""

    accepts: ClassVar[Mapping[str, str]] = {}

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def refused(self) -> Mapping[str, str]:
        return {}

    def process(self, tell: Tell, witness: Witness) -> None:
        self._servers.wait_done(120)

    def read(self, view: str, keys: Sequence[Key], times: Sequence[int]) -> list[dict[str, np.ndarray]]:
        return packed.columns(self._servers.redis_url, self._servers.plan, view, keys, times)

    def outcomes(self) -> Mapping[str, int]:
        state = self._servers.state
        try:
            return state.counters(self._servers.partitions)
        finally:
            state.close()

    def close(self) -> None:
        """The workers end with the servers."""


ENGINES: Final = {"python": "pipelines.parity.engines:PythonEngine",
                  "flink": "pipelines.flink.parity_engine:FlinkEngine"}


def engine(name: str) -> type[Any]:
    """The kind of Engine of that name. Raises Misconfigured."""
    if name not in ENGINES:
        raise Misconfigured(f"ENGINE={name}: not known; allowed are {', '.join(ENGINES)}")
    module, _, kind = ENGINES[name].partition(":")
    found: type[Any] = getattr(import_module(module), kind)
    return found
