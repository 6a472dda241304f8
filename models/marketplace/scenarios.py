"""What a scenario does to the planted world: other tastes, another season, other prices. Pure.

The scenarios that only touch what is *sent* (units, nulls, silence, who comes) are the live simulator's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from models.marketplace import names
from models.marketplace.config import Scenario
from models.marketplace.world import World

SEASON: Final = ("Running", "Camping", "Cycling", "Garden")
SEASON_LIFT: Final = 1.5  # added to the log-odds of the season's items when the season is fully there
MOVES_BY: Final = 7  # categories that a shifted shopper's preferences are rolled by


def under(world: World, scenario: Scenario) -> World:
    """The world in which this scenario holds; the same object where the scenario leaves the world alone."""
    if scenario.taste_shift:
        world = _other_tastes(world, scenario.taste_shift)
    if scenario.seasonal:
        world = _season(world, scenario.seasonal)
    if scenario.price_level:
        world = replace(world, price=np.round(world.price * (1 + scenario.price_level)).astype(np.int64))
    return world


def _other_tastes(world: World, share: float) -> World:
    """The first share of shoppers, by a fixed shuffle, like other styles and other categories."""
    order = np.random.default_rng([world.config.seed, 9]).permutation(len(world.taste))
    moved = order[: round(share * len(order))]
    taste, preference = world.taste.copy(), world.preference.copy()
    taste[moved] = world.other_taste[moved]
    preference[moved] = np.roll(preference[moved], MOVES_BY, axis=1)
    return replace(world, taste=taste, preference=preference)


def _season(world: World, share: float) -> World:
    """Everybody's preferences move by this share to the season's categories, whose items are liked more."""
    in_season = np.array([c.name in SEASON for c in names.CATEGORIES])
    target = (in_season / in_season.sum()).astype(np.float32)
    preference = ((1 - share) * world.preference + share * target).astype(np.float32)
    lift = np.where(in_season[world.category], SEASON_LIFT * share, 0.0)
    return replace(world, preference=preference, quality=(world.quality + lift).astype(np.float32))
