"""Evaluation's view of the planted truth: what the best possible recommender would know. Never for training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.marketplace import behaviour, names
from models.marketplace.history import MISSION_SHARE
from models.marketplace.world import Floats, Ints, World


def true_affinity(world: World, users: Ints, items: Ints, t: Ints) -> Floats:
    """Log-odds-scale utility of items [n, k] for shoppers [n] at t [n] (ms), mission included. Rows of the world."""
    return behaviour.affinity(world, users, items, t)


def click_share(world: World, users: Ints, t: Ints, *, mission_known: bool = True) -> NDArray[Any]:
    """The chance [n, I] that a shopper's next search at t [n] ends on each item: the oracle's ranking of the catalogue.

    Items not listed yet or out of stock get 0. `mission_known=False` is the oracle that knows tastes only.
    """
    everything = np.arange(len(world.category))
    items = np.broadcast_to(everything, (len(users), len(everything)))
    weight = np.exp(behaviour.fit(world, users, items, t).astype(np.float64))
    weight[(world.listed_at[None, :] > t[:, None]) | (world.stock[None, :] == 0)] = 0.0
    one_hot = np.eye(len(names.CATEGORIES))[world.category]  # [I, C]
    within = weight / np.maximum(weight @ one_hot @ one_hot.T, 1e-12)
    category = world.preference[users].astype(np.float64)
    mission = behaviour.mission_of(world, users, t)
    if mission_known:
        bound = np.flatnonzero(mission >= 0)
        category[bound] *= 1 - MISSION_SHARE
        category[bound, mission[bound]] += MISSION_SHARE
    return np.asarray(within * category[:, world.category])


def click_chances(world: World, users: Ints, items: Ints, t: Ints) -> NDArray[np.float64]:
    """The true chance [n, k] that each shopper [n] clicks each place of the feed `items` [n, k] at t [n] (ms).

    An item that is not of this world (row -1) is never clicked.
    """
    known = items >= 0
    utility = behaviour.affinity(world, users, np.where(known, items, 0), t)
    places = np.arange(1, items.shape[1] + 1)
    return np.where(known, behaviour.click_probability(utility, places), 0.0)


def best_feed(world: World, users: Ints, t: Ints, k: int) -> Ints:
    """The k items [n, k], best first, that each shopper is most likely to click at t [n]: listed and in stock."""
    items = np.broadcast_to(np.arange(len(world.category)), (len(users), len(world.category)))
    utility = behaviour.affinity(world, users, items, t)
    utility[(world.listed_at[None, :] > t[:, None]) | (world.stock[None, :] == 0)] = -np.inf
    top = np.argpartition(-utility, k, axis=1)[:, :k]
    return np.asarray(np.take_along_axis(top, np.argsort(-np.take_along_axis(utility, top, 1), axis=1), 1))
