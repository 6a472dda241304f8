"""A stream of ranked feeds from the planted marketplace, window by window, for scoring detectors and estimates.

A small copy of the platform in arrays: shoppers come by the world's rhythm, a LightGBM ranker that was trained before
the first window orders candidates, shoppers click by the planted truth, and the window features follow their clicks.
What the platform measures in Redis over 7 days is here an exponential window of the same length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.drift.traffic import Traffic
from models.marketplace import behaviour, history, names, scenarios, truth
from models.marketplace.config import DAY, HOUR, Scenario, WorldConfig
from models.marketplace.world import COUNTRIES, DEVICES, World, build_world
from models.ranker import RankerConfig, RankingRows, refit_on_all
from models.ranking_features import DEVICES as DEVICE_CODES

NAMES: Final = (
    "user_clicks_count_7d", "user_click_price_mean_7d", "user_click_price_min_7d",
    "user_click_categories_distinct_7d", "uc_clicks_count_7d", "uc_click_price_mean_7d", "item_impressions_count_7d",
    "item_clicks_count_7d", "item_log_price", "price_ratio_7d", "price_ratio_category", "category_affinity_7d",
    "item_ctr_7d", "item_log_age_hours", "same_category_as_last", "two_tower_score", "popularity_score", "hour_sin",
    "device",
)
FEED: Final = 20
POOL: Final = 80
BATCHES: Final = 6  # times that the window features are brought up to date within a window
SINCE: Final = 1_760_000_000_000 // DAY * DAY
QUIET: Final = Scenario()


@dataclass(frozen=True, slots=True)
class Size:
    """How large a stream is: `requests` per window of `hours`, `burn_in` windows before the ranker is trained."""

    shoppers: int = 600
    items: int = 300
    requests: int = 450
    hours: int = 24
    burn_in: int = 14
    trees: int = 30


@dataclass(slots=True, eq=False)
class _State:
    """Exponential 7-day windows, and what each shopper clicked last."""

    clicks: NDArray[np.float64]  # [U, C]
    prices: NDArray[np.float64]  # [U, C] cents of those clicks
    shown: NDArray[np.float64]  # [I]
    clicked: NDArray[np.float64]  # [I]
    lowest: NDArray[np.float64]  # [U, 7] cents, the least of each of the last seven days
    last: NDArray[np.int64]  # [U] category, -1 for none
    recent: NDArray[np.int64]  # [U, RECENT]

    def age(self, days: float) -> None:
        keep = np.exp(-days / 7)
        for sums in (self.clicks, self.prices, self.shown, self.clicked):
            sums *= keep


@dataclass(slots=True, eq=False)
class Stream:
    """Windows of one world. `window(scenario)` gives the next one and the true chance of each click."""

    seed: int
    size: Size = field(default_factory=Size)
    _world: World = field(init=False)
    _rng: np.random.Generator = field(init=False)
    _state: _State = field(init=False)
    _booster: Any = field(init=False, default=None)
    _now: int = field(init=False, default=SINCE)

    def __post_init__(self) -> None:
        days = 400
        size = self.size
        config = WorldConfig(size.shoppers, size.items, days, self.seed, SINCE + days * DAY)
        self._world = build_world(config)
        self._rng = np.random.default_rng([self.seed, 77])
        users, items = len(self._world.taste), len(self._world.category)
        categories = len(names.CATEGORIES)
        self._state = _State(
            np.zeros((users, categories)), np.zeros((users, categories)), np.zeros(items), np.zeros(items),
            np.full((users, 7), np.inf), np.full(users, -1), np.full((users, history.RECENT), -1),
        )  # fmt: skip
        self._now = self._world.config.start_ms
        self._train([self.window(QUIET)[0] for _ in range(size.burn_in)])

    def window(self, scenario: Scenario) -> tuple[Traffic, NDArray[np.float64]]:
        """The next window under `scenario`, and the planted chance [n] of a click on each shown row."""
        size, world = self.size, scenarios.under(self._world, scenario)
        asked = int(self._rng.poisson(size.requests))
        step = size.hours * HOUR // BATCHES
        parts = [self._batch(world, scenario, len(b), step) for b in np.array_split(np.arange(asked), BATCHES)]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        n = len(joined["at_ms"])
        traffic = Traffic(
            NAMES, joined["features"].reshape(n * FEED, -1), joined["scores"].ravel(),
            np.tile(np.arange(1, FEED + 1), n), joined["clicked"].ravel(), np.repeat(np.arange(n), FEED),
            joined["at_ms"], np.ones(n, bool), size.hours * 3600.0, asked,
            {name: tuple(joined[name].tolist()) for name in ("device", "country", "shopper")},
            {"total_ms": np.exp(self._rng.normal(3.0, 0.3, n))}, {"ranker_version": "1", "two_tower_version": "1"},
            {"click_log_price": joined["prices"]}, {"clicks": len(joined["prices"])},
            {"click_category": tuple(joined["kinds"].tolist())}, n,
        )  # fmt: skip
        return traffic, joined["chance"].ravel()

    def _batch(self, world: World, scenario: Scenario, count: int, step: int) -> dict[str, NDArray[Any]]:
        rng, state = self._rng, self._state
        if (self._now + step) // DAY != self._now // DAY:
            state.lowest[:, (self._now + step) // DAY % 7] = np.inf
        self._now += step
        state.age(step / DAY)
        t = np.sort(self._now - rng.integers(0, step, count))
        user, device, country, fresh = self._who(world, scenario, t)
        sent = rng.random(count) >= scenario.nulls
        listed = np.flatnonzero((world.listed_at <= self._now - step) & (world.stock > 0))
        pool = self._pool(listed, count)
        features = self._features(world, user, pool, t, np.where(sent, device, -1))
        flat = features.reshape(count * POOL, -1)
        scores = (
            rng.random((count, POOL)) if self._booster is None
            else self._booster.predict(flat, num_threads=1).reshape(count, POOL)
        )  # fmt: skip
        top = np.argsort(-scores, axis=1)[:, :FEED]
        items = np.take_along_axis(pool, top, 1)
        chance = truth.click_chances(world, user, items, t)
        clicked = (rng.random(chance.shape) < chance) & (rng.random(chance.shape) >= scenario.silence)
        prices, kinds = self._learn(world, scenario, user, t, items, clicked, listed)
        code = np.array([*DEVICES, ""])
        place = np.array([*COUNTRIES, ""])
        return {
            "features": np.take_along_axis(features, top[:, :, None], 1), "at_ms": t, "clicked": clicked,
            "scores": np.take_along_axis(scores, top, 1), "chance": chance,
            "device": code[np.where(sent, device, -1)], "country": place[np.where(sent, country, -1)],
            "shopper": np.where(fresh, "new", "returning"), "prices": prices,
            "kinds": kinds,
        }  # fmt: skip

    def _who(self, world: World, scenario: Scenario, t: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        rng, n = self._rng, len(t)
        here = np.flatnonzero(world.joined_at[: self.size.shoppers] <= t[0]) if n else np.arange(1)
        weight = world.activity[here] * behaviour.rhythm(world.country[here], np.array(self._now))
        user = here[rng.choice(len(here), n, p=weight / weight.sum())]
        other = rng.random(n) < 0.2
        device = np.where(other, rng.integers(0, len(DEVICES), n), world.device[user])
        country = world.country[user]
        mixed = rng.random(n) < scenario.traffic_mix
        user = np.where(mixed, rng.integers(self.size.shoppers, len(world.taste), n), user)
        device = np.where(mixed, DEVICES.index("phone"), device)
        country = np.where(mixed, COUNTRIES.index("SE"), country)
        return user, device, country, self._state.clicks[user].sum(1) < 0.5

    def _pool(self, listed: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Half of the candidates by popularity, half at random, all different."""
        weight = (self._state.clicked[listed] + 0.5) ** 0.8
        keys = self._rng.gumbel(size=(n, len(listed)))
        keys[:, :] += np.where(self._rng.random((n, len(listed))) < 0.5, np.log(weight), np.log(weight.mean()))
        return listed[np.argpartition(-keys, POOL, axis=1)[:, :POOL]]

    def _features(
        self, world: World, user: NDArray[Any], items: NDArray[Any], t: NDArray[Any], device: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Rows [n, POOL, F] in the order of NAMES; unknown is NaN."""
        state, shape = self._state, items.shape
        category = world.category[items]
        total, cents = state.clicks[user].sum(1), state.prices[user].sum(1)
        uc = np.take_along_axis(state.clicks[user], category, 1)
        uc_cents = np.take_along_axis(state.prices[user], category, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(total >= 0.2, cents / total, np.nan)
            uc_mean = np.where(uc >= 0.2, uc_cents / uc, np.nan)
        log_price = np.log1p(behaviour.price_at(world, items, t[:, None]))
        shown, clicked = state.shown[items], state.clicked[items]
        # what the encoder learned is the world before any scenario, with an error that stays
        fit = np.einsum("nd,nkd->nk", self._world.taste[user], self._world.item_vector[items])
        wrong = behaviour.uniform(21, np.broadcast_to(user[:, None], shape), items) - 0.5
        angle = 2 * np.pi * (t % DAY) / DAY
        codes = np.array([DEVICE_CODES.index(name) for name in DEVICES], np.float64)
        columns = {
            "user_clicks_count_7d": total, "user_click_price_mean_7d": mean,
            "user_click_price_min_7d": state.lowest[user].min(1),
            "user_click_categories_distinct_7d": (state.clicks[user] > 0.3).sum(1), "uc_clicks_count_7d": uc,
            "uc_click_price_mean_7d": uc_mean, "item_impressions_count_7d": shown, "item_clicks_count_7d": clicked,
            "item_log_price": log_price, "price_ratio_7d": log_price - np.log1p(mean)[:, None],
            "price_ratio_category": log_price - np.log1p(uc_mean), "category_affinity_7d": uc / (total[:, None] + 1),
            "item_ctr_7d": (clicked + 1) / (shown + 20),
            "item_log_age_hours": np.log1p(np.maximum(t[:, None] - world.listed_at[items], 0) / HOUR),
            "same_category_as_last": np.where(
                state.last[user][:, None] < 0, np.nan, category == state.last[user][:, None]),
            "two_tower_score": 0.7 * fit + 0.6 * wrong, "popularity_score": np.log1p(clicked),
            "hour_sin": np.sin(angle), "device": np.where(device < 0, np.nan, codes[device]),
        }  # fmt: skip
        rows = np.empty((*shape, len(NAMES)), np.float32)
        for i, name in enumerate(NAMES):
            values = np.asarray(columns[name], np.float64)
            rows[:, :, i] = values if values.ndim == 2 else values[:, None]
        return rows

    def _learn(
        self, world: World, scenario: Scenario, user: NDArray[Any], t: NDArray[Any], items: NDArray[Any],
        clicked: NDArray[np.bool_], listed: NDArray[Any],
    ) -> tuple[NDArray[np.float64], NDArray[np.str_]]:  # fmt: skip
        """Bring the windows up to date: clicks in feeds, one search a visit. Log prices and categories of both."""
        state, rng = self._state, self._rng
        np.add.at(state.shown, items.ravel(), 1.0)
        row, place = np.nonzero(clicked)
        category = history.intents(world, user, t, rng)
        found, many = history.browse(world, user, t, category, listed, state.recent, rng)
        sent = rng.random(found.shape) >= scenario.silence
        search, column = np.nonzero((np.arange(history.MAX_CLICKS) < many[:, None]) & (found >= 0) & sent)
        who = np.concatenate([user[row], user[search]])
        what = np.concatenate([items[row, place], found[search, column]])
        when = np.concatenate([t[row], t[search]])
        price = behaviour.price_at(world, what, when)
        price = np.where(rng.random(len(price)) < scenario.broken_units, price // 100, price)
        kind = world.category[what]
        np.add.at(state.clicks, (who, kind), 1.0)
        np.add.at(state.prices, (who, kind), price.astype(np.float64))
        np.add.at(state.clicked, what, 1.0)
        state.last[who] = kind
        np.minimum.at(state.lowest, (who, (when // DAY) % 7), price)
        history.remember(state.recent, who, what)
        return np.log1p(price), np.array([c.name for c in names.CATEGORIES])[kind]

    def _train(self, windows: list[Traffic]) -> None:
        """Learn from what was shown at random, the second half of it: by then the windows are full."""
        kept = windows[len(windows) // 2 :]
        rows = RankingRows(
            np.concatenate([w.features for w in kept]), np.concatenate([w.clicked for w in kept]).astype(np.int64),
            np.full(sum(w.requests for w in kept), FEED), np.concatenate([w.positions for w in kept]),
        )  # fmt: skip
        config = RankerConfig(trees=self.size.trees, min_rows_per_leaf=50)
        self._booster = refit_on_all(rows, self.size.trees, config, NAMES, threads=1)
