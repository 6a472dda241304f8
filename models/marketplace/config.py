"""What can be chosen about the marketplace: its size (`WorldConfig`) and what goes wrong in it (`Scenario`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Final

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """Size, seed and end of history of one marketplace. `as_of_ms`: Unix milliseconds, the end of history."""

    shoppers: int
    items: int
    days: int
    seed: int
    as_of_ms: int

    def __post_init__(self) -> None:
        for name, least in (("shoppers", 20), ("items", 100), ("days", 1), ("seed", 0), ("as_of_ms", 400 * DAY)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least {least}")

    @property
    def start_ms(self) -> int:
        return self.as_of_ms - self.days * DAY

    @property
    def reserve_items(self) -> int:
        """Items that are planted now and listed only after history ends."""
        return max(50, self.items // 10)

    @property
    def reserve_shoppers(self) -> int:
        """Shoppers that are planted now and come only after history ends."""
        return max(100, self.shoppers // 5)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is wrong with the live marketplace. Every switch is a share between 0 (off) and 1; MEANING says of what."""

    taste_shift: float = 0.0
    traffic_mix: float = 0.0
    seasonal: float = 0.0
    price_level: float = 0.0
    broken_units: float = 0.0
    nulls: float = 0.0
    silence: float = 0.0
    fraud_ring: float = 0.0
    price_experiment: float = 0.0

    MEANING: ClassVar[Mapping[str, str]] = {
        "taste_shift": "share of shoppers who now like other styles and other categories",
        "traffic_mix": "share of sessions that come from phones of one rare country, by shoppers never seen before",
        "seasonal": "how far everybody's liking has moved to the categories of the season",
        "price_level": "share by which every price has risen; 1 doubles them",
        "broken_units": "share of events whose price is sent in whole euros instead of cents",
        "nulls": "share of sessions whose device and country are not sent",
        "silence": "share of clicks, carts, orders and payments that never reach the collector; feeds go on",
    }

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"scenario {f.name} = {value}: must be a share between 0 and 1")
            if value and f.name not in self.MEANING:
                raise ValueError(f"scenario {f.name} is not available; choose from {', '.join(self.MEANING)}")

    @classmethod
    def parse(cls, text: str) -> Scenario:
        """Read `taste_shift=0.5,broken_units=0.1`; an empty text is the quiet marketplace. Raises ValueError."""
        values: dict[str, float] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, _, share = part.partition("=")
            try:
                values[name] = float(share)
            except ValueError:
                raise ValueError(f"scenario {part!r}: write it as {name}=0.5, a share between 0 and 1") from None
        return cls().changed(values)

    def changed(self, shares: Mapping[str, float]) -> Scenario:
        """This scenario with some switches set anew. Raises ValueError on unknown names and shares."""
        known = [f.name for f in fields(self)]
        for name in shares:
            if name not in known:
                raise ValueError(f"scenario {name!r} is unknown; choose from {', '.join(self.MEANING)}")
        return replace(self, **shares)

    def shares(self) -> dict[str, float]:
        """The value of every switch that can be used."""
        return {name: getattr(self, name) for name in self.MEANING}
