"""What a shopper does: the one set of rules that the history and the live process both follow.

All functions are vectorised and take the time as Unix milliseconds. Utilities are on the log-odds scale.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.marketplace import names
from models.marketplace.config import DAY
from models.marketplace.world import COMPANIONS, UTC_OFFSET_H, Floats, Ints, World

TASTE, CATEGORY, MISSION, NOVELTY = 3.2, 0.55, 1.6, 0.5  # weights of the utility's terms
CLICK_BIAS: Final = -3.0
REVISIT: Final = 0.3  # chance that a search begins with an item that the shopper looked at before
COMPANION: Final = 0.33  # chance that the next click is a companion of the last one
GOES_WITH: Final = np.array([c.goes_with for c in names.CATEGORIES])
_LOG_MEDIAN: Final = np.log(np.array([c.median_euros for c in names.CATEGORIES]) * 100).astype(np.float32)
# Weight of each local hour, and of each weekday from Monday
HOURLY: Final = np.array([2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 8, 9, 10, 9, 8, 8, 9, 10, 12, 14, 15, 13, 8, 4]) / 7.04
WEEKDAY: Final = np.array([0.95, 0.93, 0.94, 0.97, 1.03, 1.13, 1.05])


def uniform(salt: int, a: Ints, b: Ints) -> NDArray[np.float64]:
    """A fixed uniform [0, 1) for every (salt, a, b): splitmix64, so the future needs no stored state."""
    with np.errstate(over="ignore"):
        x = a.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + b.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
        x += np.uint64(salt) * np.uint64(0x165667B19E3779F9)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53)


def price_at(world: World, items: Ints, t: Ints) -> Ints:
    """Price in cents of `items` at `t` (same shape, or broadcastable)."""
    return np.asarray(np.where(t < world.price_change_at[items], world.price[items, 0], world.price[items, 1]))


def popularity_at(world: World, items: Ints, t: Ints) -> Floats:
    """What everybody likes about `items` at `t`: quality, slow waves, short bursts of fashion and novelty."""
    amplitude, period, phase = np.moveaxis(world.trend[items], -1, 0)
    wave = amplitude * np.sin(2 * np.pi * (t / DAY) / period + phase)
    week, into = t // (7 * DAY), (t % (7 * DAY)) / DAY
    since = into - 5 * uniform(12, items, week)  # a burst begins on one of the first five days and fades within two
    burst = np.where((uniform(11, items, week) < 0.04) & (since > 0), 2.2 * np.exp(-since / 1.2), 0.0)
    age = (t - world.listed_at[items]) / DAY
    novelty = NOVELTY * np.exp(-np.maximum(age, 0) / 4)
    return np.asarray(world.quality[items] + wave + burst + novelty, np.float32)


def mission_of(world: World, users: Ints, t: Ints) -> Ints:
    """The category that each shopper is shopping for these days; -1 for none. It changes every few days."""
    length, phase = world.mission[users, 0], world.mission[users, 1]
    block = ((t / DAY + phase) / length).astype(np.int64)
    follows = (uniform(3, users, block) < 0.4) & (block > 0)
    drawn = pick_category(world, users, uniform(2, users, block - follows))
    category = np.where(follows, GOES_WITH[drawn], drawn)
    return np.asarray(np.where(uniform(4, users, block) < 0.15, -1, category))


def pick_category(world: World, users: Ints, chance: NDArray[np.float64]) -> Ints:
    """The category at quantile `chance` [n] of each shopper's preferences."""
    cumulative = np.cumsum(world.preference[users], axis=1, dtype=np.float64)
    return np.asarray((cumulative / cumulative[:, -1:] <= chance[:, None]).sum(1), np.int64)


def fit(world: World, users: Ints, items: Ints, t: Ints) -> Floats:
    """How well items [n, k] suit shoppers [n] at t [n] within their category: taste, price and popularity. [n, k]"""
    when = t[:, None]
    taste = np.einsum("nd,nkd->nk", world.taste[users], world.item_vector[items])
    log_price = np.log(price_at(world, items, when)).astype(np.float32) - _LOG_MEDIAN[world.category[items]]
    dear = log_price - world.price_level[users][:, None]
    price = -world.price_sensitivity[users][:, None] * np.minimum(dear * dear, 4.0)
    return np.asarray(TASTE * taste + price + popularity_at(world, items, when), np.float32)


def affinity(world: World, users: Ints, items: Ints, t: Ints) -> Floats:
    """The true log-odds-scale utility of items [n, k] for shoppers [n] at t [n], their mission included. [n, k]"""
    category = world.category[items]
    liking = np.log(np.take_along_axis(world.preference[users], category, 1) * len(names.CATEGORIES) + 0.05)
    on_mission = category == mission_of(world, users, t)[:, None]
    return np.asarray(fit(world, users, items, t) + CATEGORY * liking + MISSION * on_mission, np.float32)


def examination(positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Chance that a shopper looks at a 1-based position of a feed."""
    return np.asarray((1 + 0.25 * (positions - 1)) ** -0.8)


def click_probability(utility: Floats, positions: Ints) -> NDArray[np.float64]:
    """Chance of a click in a feed: examined (position bias) and liked."""
    return np.asarray(examination(positions) / (1 + np.exp(-(utility + CLICK_BIAS))))


def cart_probability(fits: Floats) -> NDArray[np.float64]:
    """Chance that a clicked item goes into the cart."""
    return np.asarray(0.5 / (1 + np.exp(-(fits - 2.6))))


def choose(fits: Floats, count: int, rng: np.random.Generator) -> Ints:
    """Draw `count` distinct columns per row of `fits` [n, m] by softmax (Gumbel top-k), in order of choice."""
    keys = fits + rng.gumbel(size=fits.shape)
    top = np.argpartition(-keys, min(count, keys.shape[1] - 1), axis=1)[:, :count]
    return np.take_along_axis(top, np.argsort(-np.take_along_axis(keys, top, 1), axis=1), 1)


def companion_of(world: World, items: Ints, rng: np.random.Generator) -> Ints:
    """One of the items that shoppers look at after `items` [n]."""
    return np.asarray(world.companions[items, rng.integers(0, COMPANIONS, len(items))])


def rhythm(world_country: Ints, t: Ints) -> NDArray[np.float64]:
    """How busy shoppers of these countries are at `t`, 1 on average over a week."""
    local = t // 3_600_000 + np.array(UTC_OFFSET_H)[world_country]
    return np.asarray(HOURLY[local % 24] * WEEKDAY[(local // 24 + 3) % 7])
