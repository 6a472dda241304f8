"""Single flight: while one caller works on a key, others who ask for the same key wait for that work. Keeps nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Work under way by key. A caller who goes away does not take the work from the others."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, asyncio.Task[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        """Whether work for this key is under way."""
        return key in self._flights

    async def do(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """The result of `work`, and whether it was somebody else's. Whatever it raises, all who wait for it get."""
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(work())
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight), joined

    def _landed(self, key: Hashable, done: asyncio.Task[T]) -> None:
        del self._flights[key]
        if not done.cancelled():
            done.exception()  # seen, even where every caller has gone away
