"""Plants the truth: who the shoppers are, what the items are, how they fit. Everything later is read off these arrays.

Row n of an item array is the item `item_id(n)`, row n of a shopper array the shopper `user_id(n)`. Rows past
`config.items` and `config.shoppers` are in reserve: planted now, they arrive after the end of history.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.marketplace import names
from models.marketplace.config import DAY, HOUR, WorldConfig

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DIMENSIONS: Final = 16
COMPANIONS: Final = 4
NEVER: Final = 2**62
COUNTRIES: Final = ("DE", "FR", "NL", "ES", "IT", "PL", "SE", "US")
COUNTRY_SHARE: Final = (0.30, 0.18, 0.12, 0.11, 0.11, 0.06, 0.05, 0.07)
UTC_OFFSET_H: Final = (1, 1, 1, 1, 1, 1, 1, -6)
DEVICES: Final = ("phone", "desktop", "tablet")
DEVICE_SHARE: Final = (0.58, 0.33, 0.09)


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """The planted marketplace. Items: I rows; shoppers: U rows; C categories; D latent dimensions."""

    config: WorldConfig
    # items
    item_vector: Floats  # [I, D] unit length
    category: Ints  # [I]
    style: Ints  # [I]
    seller: Ints  # [I]
    price: Ints  # [I, 2] cents before and after `price_change_at`
    price_change_at: Ints  # [I] ms, NEVER if the price stays
    quality: Floats  # [I]
    trend: Floats  # [I, 3] amplitude, period in days, phase
    listed_at: Ints  # [I] ms
    stock: Ints  # [I]
    promoted: NDArray[np.bool_]  # [I]
    companions: Ints  # [I, COMPANIONS] items that are looked at after this one
    title: NDArray[np.str_]  # [I]
    # shoppers
    taste: Floats  # [U, D]
    other_taste: Floats  # [U, D] taste after a taste shift
    preference: Floats  # [U, C] rows add to 1
    price_sensitivity: Floats  # [U]
    price_level: Floats  # [U] log of preferred price over the category's median
    activity: Floats  # [U] sessions per day
    country: Ints  # [U]
    device: Ints  # [U]
    joined_at: Ints  # [U] ms
    mission: Floats  # [U, 2] length in days and phase of the shopper's missions

    def arrays(self) -> dict[str, Any]:
        """Everything as plain arrays, for one .npz file; `from_arrays` reads them back."""
        config = {f"config_{f.name}": np.int64(getattr(self.config, f.name)) for f in fields(self.config)}
        return config | {f.name: getattr(self, f.name) for f in fields(self) if f.name != "config"}

    @classmethod
    def from_arrays(cls, arrays: Any) -> World:
        """Inverse of `arrays`; `arrays` is any mapping by name, an open .npz included. KeyError if one is missing."""
        config = WorldConfig(**{f.name: int(arrays[f"config_{f.name}"]) for f in fields(WorldConfig)})
        return cls(config=config, **{f.name: arrays[f.name] for f in fields(cls) if f.name != "config"})


def item_id(row: int) -> str:
    return f"i{row:05d}"


def user_id(row: int) -> str:
    return f"u{row:05d}"


def seller_id(row: int) -> str:
    return f"seller-{row:03d}"


def build_world(config: WorldConfig) -> World:
    """The marketplace of this size and seed. Same config, same arrays."""
    rng = np.random.default_rng([config.seed, 1])
    styles = _unit(rng.normal(size=(len(names.STYLES), DIMENSIONS)))
    items = _items(config, styles, rng)
    return World(config=config, **items, **_shoppers(config, styles, rng))


def _unit(x: NDArray[Any]) -> Floats:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)


def _items(config: WorldConfig, styles: Floats, rng: np.random.Generator) -> dict[str, Any]:
    n = config.items + config.reserve_items
    share = np.array([c.share for c in names.CATEGORIES])
    category = rng.choice(len(share), n, p=share / share.sum())
    style = rng.integers(0, len(styles), n)
    vector = _unit(styles[style] + 0.55 * _unit(rng.normal(size=(n, DIMENSIONS))))
    median = np.array([c.median_euros for c in names.CATEGORIES])[category]
    price = np.maximum(99, np.round(median * np.exp(rng.normal(0, 0.5, n)) * 10) * 10 - 1).astype(np.int64)
    later = np.maximum(99, np.round(price * rng.uniform(0.7, 1.15, n) / 10) * 10 - 1).astype(np.int64)
    changes = rng.random(n) < 0.15
    change_at = config.start_ms + (rng.random(n) * config.days * DAY).astype(np.int64)
    listed = _arrivals(config, config.items, config.reserve_items, 0.18, 90, rng)
    sellers = max(8, config.items // 25)
    scarce = np.where(rng.random(n) < 0.05, rng.integers(1, 6, n), 1 + rng.poisson(400, n))
    return {
        "item_vector": vector, "category": category, "style": style,
        "seller": (rng.random(n) ** 2 * sellers).astype(np.int64), "price": np.stack([price, later], 1),
        "price_change_at": np.where(changes & (change_at > listed), change_at, NEVER),
        "quality": rng.normal(0, 0.75, n).astype(np.float32),
        "trend": np.stack([rng.gamma(2, 0.2, n), rng.uniform(6, 40, n), rng.uniform(0, 6.28, n)], 1).astype(np.float32),
        "listed_at": listed, "stock": np.where(rng.random(n) < 0.03, 0, scarce), "promoted": rng.random(n) < 0.02,
        "companions": _companions(category, vector, config.items, rng), "title": names.titles(category, style, rng),
    }  # fmt: skip


def _shoppers(config: WorldConfig, styles: Floats, rng: np.random.Generator) -> dict[str, Any]:
    n = config.shoppers + config.reserve_shoppers
    share = np.array([c.share for c in names.CATEGORIES])

    def tastes() -> Floats:
        liked = rng.integers(0, len(styles), (n, 2))
        return _unit(styles[liked[:, 0]] + 0.6 * styles[liked[:, 1]] + 0.45 * _unit(rng.normal(size=(n, DIMENSIONS))))

    preference = rng.gamma(0.28 * share / share.mean(), 1.0, (n, len(share))) + 0.004
    length = rng.uniform(1.5, 5.0, n)
    return {
        "taste": tastes(), "other_taste": tastes(),
        "preference": (preference / preference.sum(1, keepdims=True)).astype(np.float32),
        "price_sensitivity": rng.gamma(2.0, 0.45, n).astype(np.float32),
        "price_level": rng.normal(0, 0.45, n).astype(np.float32),
        "activity": (0.9 * rng.gamma(1.3, 1 / 1.3, n) + 0.02).astype(np.float32),
        "country": rng.choice(len(COUNTRIES), n, p=COUNTRY_SHARE),
        "device": rng.choice(len(DEVICES), n, p=DEVICE_SHARE),
        "joined_at": _arrivals(config, config.shoppers, config.reserve_shoppers, 0.2, 700, rng),
        "mission": np.stack([length, rng.uniform(0, 1, n) * length], 1).astype(np.float32),
    }  # fmt: skip


def _arrivals(
    config: WorldConfig, count: int, reserve: int, share: float, days_before: int, rng: np.random.Generator
) -> Ints:
    """Arrival times, ms: most before history, `share` evenly during it, the reserve at the same pace after it."""
    before = config.start_ms - HOUR - (rng.random(count) * days_before * DAY).astype(np.int64)
    during = config.start_ms + (rng.random(count) * config.days * DAY).astype(np.int64)
    pace = config.days * DAY / (share * count)
    after = config.as_of_ms + ((np.arange(reserve) + 0.05) * pace).astype(np.int64)
    return np.concatenate([np.where(rng.random(count) < share, during, before), after])


def _companions(category: Ints, vector: Floats, settled: int, rng: np.random.Generator) -> Ints:
    """For each item the nearest in style among a few of its own and a few of the complementary category."""
    by_category = [np.flatnonzero(category[:settled] == c) for c in range(len(names.CATEGORIES))]
    companions = np.empty((len(category), COMPANIONS), np.int64)
    half = COMPANIONS // 2
    for c, entry in enumerate(names.CATEGORIES):
        rows = np.flatnonzero(category == c)
        for column, pool in ((0, by_category[c]), (half, by_category[entry.goes_with])):
            if not len(pool):
                pool = np.arange(settled)
            tried = pool[rng.integers(0, len(pool), (len(rows), 24))]
            fit = np.einsum("nd,nkd->nk", vector[rows], vector[tried]) - 9.0 * (tried == rows[:, None])
            best = np.argsort(-fit, axis=1)[:, :half]
            companions[rows, column : column + half] = np.take_along_axis(tried, best, 1)
    return companions
