"""What the recommender would have retrieved and known at past moments: candidates, their scores and ranking features.

A request here is (shopper, moment). Moments lie on a grid of the window, so that item features are joined once for
each. Only what happened strictly before the moment, and models of a stage that ended before the window, are used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.errors import Misconfigured
from feature_repo.plan import FeaturePlan
from models.ann_index import AnnIndex
from models.cooccurrence import Cooccurrence
from models.ranking_features import ITEM, USER, USER_CATEGORY, RankingInputs, assemble
from models.retrieval import SIZES, newest_rows, top_rows, trending_scores
from pipelines.history import Feeds, History, Ints
from pipelines.point_in_time import features_at
from pipelines.stages import Context, Stage
from pipelines.train_two_tower import load_model

GRID: Final = 48
_MOST_ITEM_ROWS: Final = 250_000
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Requests:
    """Shoppers asking, in order of time: `user` [A] 0-based, `time_ms` [A], `moment` [A] row of `moments`."""

    user: Ints
    time_ms: Ints
    moment: Ints
    moments: Ints
    device: NDArray[Any]

    def take(self, rows: NDArray[Any]) -> Requests:
        return Requests(self.user[rows], self.time_ms[rows], self.moment[rows], self.moments, self.device[rows])


@dataclass(frozen=True)
class Candidates:
    """One request's candidates: `rows` int64 [n] and the retrieval columns [n] of `ranking_features.RETRIEVAL`."""

    rows: Ints
    retrieval: Columns


def grid(history: History, since_ms: int, until_ms: int, share: float = 1.0) -> Ints:
    """Moments at which requests are placed: at most GRID, fewer for a large catalogue; `share` of them."""
    count = round(share * int(np.clip(_MOST_ITEM_ROWS // max(len(history.items), 1), 4, GRID)))
    return np.linspace(since_ms, until_ms, count, endpoint=False).astype(np.int64)


def requests_in(history: History, feeds: Feeds, moments: Ints, until_ms: int) -> Requests:
    """Every (shopper, moment) where the shopper touched or was shown something before the next moment."""
    inside = (history.time_ms >= moments[0]) & (history.time_ms < until_ms)
    user = np.concatenate([history.user[inside], feeds.user])
    time_ms = np.concatenate([history.time_ms[inside], feeds.time_ms])
    device = np.concatenate([np.full(int(inside.sum()), None, dtype=object), feeds.device])
    moment = np.searchsorted(moments, time_ms, side="right") - 1
    known_first = np.lexsort((device == None, moment * len(history.users) + user))  # noqa: E711
    pairs, first = np.unique((moment * len(history.users) + user)[known_first], return_index=True)
    chosen = known_first[first]
    at = (pairs // len(history.users)).astype(np.int64)
    return Requests(pairs % len(history.users), moments[at], at, moments, device[chosen])


def _plan(context: Context) -> FeaturePlan:
    path = context.settings.features / "plan.json"
    try:
        return FeaturePlan.load(path)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path}: {error}; compile it with python -m pipelines.apply_features") from None


class Retrieval:
    """A stage's models answering requests in a later window."""

    def __init__(self, context: Context, stage: Stage, requests: Requests) -> None:
        self.history, self.requests = context.history, requests
        self.plan = _plan(context)
        self._join(context, stage)
        model, n_items = load_model(stage, self.history), self.history.counts_at(stage.until_ms)[1]
        self.recent = self.history.recent.before(requests.user, requests.time_ms)
        known = np.where(requests.user < self.history.counts_at(stage.until_ms)[0], requests.user + 1, 0)
        self.queries = model.embed_users(known, np.where(self.recent < n_items, self.recent + 1, 0))
        self.embeddings = np.load(stage.path("two_tower/embeddings.npy"))
        index = AnnIndex.load(stage.path("index/items.faiss"), threads=context.settings.threads)
        self._nearest = index.search(self.queries, SIZES["two_tower"])[1]
        self.neighbours = Cooccurrence.load(stage.path("cooccurrence/neighbours.npz"))
        self.popularity = np.load(stage.path("popularity/popularity.npz"))["scores"]
        self._heat = [self._moment_heat(m) for m in range(len(requests.moments))]
        self._lists = [self._moment_lists(m) for m in range(len(requests.moments))]

    def candidates(self, request: int) -> Candidates:
        """The union of the four sources for one request, without what the shopper touched last."""
        moment = self.requests.moment[request]
        recent = self.recent[request][self.recent[request] >= 0]
        lists = {
            "two_tower": self._nearest[request][self._nearest[request] >= 0],
            "cooccurrence": self.neighbours.retrieve(recent, SIZES["cooccurrence"])[0],
            **self._lists[moment],
        }
        rows = np.setdiff1d(np.concatenate(list(lists.values())), recent)
        return Candidates(rows, self.describe(request, rows, lists))

    def describe(self, request: int, rows: Ints, lists: Mapping[str, Ints]) -> Columns:
        """Scores of `rows` whatever source they came from, and their rank in each source's list."""
        place = np.full(len(self.history.items), np.nan)
        columns: Columns = {}
        for source, listed in lists.items():
            place[listed] = np.arange(1, len(listed) + 1)
            columns[f"{source}_rank"] = place[rows]
            place[listed] = np.nan
        known = rows < len(self.embeddings)
        inside = np.where(known, rows, 0)
        cosine = self.embeddings[inside] @ self.queries[request]
        columns["two_tower_score"] = np.where(known, cosine, np.nan)
        columns |= self.neighbours.features(self.recent[request], rows)
        columns["popularity_score"] = np.where(known, self.popularity[inside], 0.0)
        return columns

    def features(self, request: int, found: Candidates) -> NDArray[np.float32]:
        """Ranking rows [n, F] of a request's candidates."""
        moment, rows = self.requests.moment[request], found.rows
        category = self._category[moment][rows]
        recent = self.recent[request][self.recent[request] >= 0]
        at = datetime.fromtimestamp(self.requests.time_ms[request] / 1000, UTC)
        items = {name: column[moment][rows] for name, column in self._items.items()}
        items["price_cents"] = self._price[moment][rows]
        items["age_hours"] = (self.requests.time_ms[request] - self.history.listed_ms[rows]) / 3_600_000
        return assemble(RankingInputs(
            n=len(rows),
            user={name: float(column[request]) for name, column in self._users.items()},
            items=items,
            user_category={name: column[request][category] for name, column in self._tastes.items()},
            retrieval=found.retrieval, category=category, item_ids=rows,
            recent_categories=tuple(self._category[moment][recent]), recent_items=tuple(recent),
            hour=at.hour + at.minute / 60, weekday=float(at.weekday()), device=self.requests.device[request],
        ))  # fmt: skip

    def categories(self, request: int, rows: Ints) -> NDArray[np.int64]:
        """Their category codes at the request's moment."""
        found: NDArray[np.int64] = self._category[self.requests.moment[request]][rows]
        return found

    def liked(self, request: int) -> NDArray[np.int64]:
        """The categories of what the shopper touched last, newest first."""
        recent = self.recent[request]
        return self.categories(request, recent[recent >= 0])

    def heat(self, request: int) -> NDArray[np.float64]:
        """The trending source's score of every item at the request's moment."""
        found: NDArray[np.float64] = self._heat[self.requests.moment[request]]
        return found

    def vectors(self, rows: Ints) -> NDArray[np.float32]:
        """Embeddings of `rows`; zeros for items newer than the index."""
        known = rows < len(self.embeddings)
        return np.where(known[:, None], self.embeddings[np.where(known, rows, 0)], np.float32(0))

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.requests.user)))

    def _moment_heat(self, moment: int) -> NDArray[np.float64]:
        popularity = np.zeros(len(self.history.items))
        popularity[: len(self.popularity)] = self.popularity
        return trending_scores({name: column[moment] for name, column in self._items.items()}, popularity)

    def _moment_lists(self, moment: int) -> dict[str, Ints]:
        when = self.requests.moments[moment]
        listed, heat = self.history.item_seen_ms < when, self._heat[moment]
        age = np.where(listed, (when - self.history.listed_ms) / 3_600_000, -1.0)
        return {
            "trending": top_rows(np.where(listed, heat, -np.inf)[: int(listed.sum())], SIZES["trending"]),
            "new_items": newest_rows(age, SIZES["new_items"]),
        }

    def _remembered(self, stage: Stage, join: Callable[[], Columns]) -> Columns:
        """Item windows [moments, items]: joined once for the dataset and the evaluation of one window."""
        shape = (len(self.requests.moments), len(self.history.items))
        identity = [self.plan.sha256, self.history.as_of_ms, self.requests.moments.tolist(), shape]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        path = stage.path(f"joined/items-{key}.npz")
        if not path.exists():
            staged = path.with_suffix(".part.npz")
            np.savez(staged, allow_pickle=False, **join())
            staged.replace(path)
        with np.load(path, allow_pickle=False) as saved:
            return {name: saved[name].reshape(shape) for name in ITEM}

    def _join(self, context: Context, stage: Stage) -> None:
        """Window features of items, shoppers and shopper x category at the moments, and the catalogue then."""
        history, moments, asked = self.history, self.requests.moments, self.requests
        lake, threads = context.settings.lake, context.settings.threads
        n_items, n_categories = len(history.items), len(history.categories)

        def join(view: str, keys: Columns, at_ms: Ints, names: tuple[str, ...]) -> Columns:
            return features_at(
                lake, self.plan, view, keys, at_ms, strictly_before=True, only=names, threads=threads
            )

        self._items = self._remembered(stage, lambda: join(
            "item_activity", {"item_id": np.tile(history.items, len(moments))}, np.repeat(moments, n_items), ITEM
        ))  # fmt: skip
        self._users = join("user_activity", {"user_id": history.users[asked.user]}, asked.time_ms, USER)
        tastes = join(
            "user_category_activity",
            {"user_id": np.repeat(history.users[asked.user], n_categories),
             "category": np.tile(history.categories, len(asked.user))},
            np.repeat(asked.time_ms, n_categories), USER_CATEGORY,
        )  # fmt: skip
        self._tastes = {name: column.reshape(len(asked.user), n_categories) for name, column in tastes.items()}
        content = [history.content_at(int(moment)) for moment in moments]
        self._category, self._price = [c for c, _ in content], [p for _, p in content]
