"""The funnel on one screen: retrieve about 1,000 -> pre-rank to 200 -> rank -> re-rank to k.

Knows no HTTP, no Kafka, no Redis and no Triton: it is given the shelf, someone to ask about shoppers and someone who
runs models. Every stage may fail or be late; then it is left out, named in `degraded`, and the answer still holds
k distinct products that can be bought (fewer only where the shop has fewer).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adapters.errors import Unavailable
from adapters.model_server import ModelServer
from models.rerank import SOLD_OUT, Age, Context, Rule, Slate, described, rerank
from services.recommender.lineup import Lineup
from services.recommender.pool import PRERANKED, pool_of
from services.recommender.roles import Choice
from services.recommender.run import Run
from services.recommender.scoring import ranking_rows
from services.recommender.shelf import Shelf, Table
from services.recommender.shoppers import Shoppers
from services.recommender.sources import Query, Source
from services.recommender.terms import Ask, Decision, Looked, Placed, Pool, Rows, Scores, Shopper, Stage


class Strangers(Protocol):
    """Who keeps decisions for shoppers of whom nothing is known: see answers.py."""

    def take(self, shopper: Shopper, lineup: Lineup, run: Run) -> bool:
        """Whether this shopper may get what another one got."""

    async def answer(
        self, ask: Ask, choice: Choice, run: Run, decide: Callable[[], Coroutine[Any, Any, Decision]]
    ) -> Decision:
        """A kept decision, or what `decide` says."""


@dataclass(frozen=True)
class Recommender:
    """Everything the decision needs, wired by `main.build`."""

    choose: Callable[[str], Choice]
    """The shelf that answers a shopper, by user id."""
    shoppers: Shoppers
    models: ModelServer
    sources: Sequence[Source]
    rules: Sequence[Rule]
    in_stock: Callable[[str], bool]
    log_stalled: Callable[[], bool]
    budgets_ms: Mapping[Stage, float]
    feature_version: str

    async def warm_up(self, times: int) -> None:
        """Answer strangers for nobody: connections are made, libraries load what they load on first use."""
        for i in range(times):
            with suppress(Unavailable):
                now_ms = self.choose(f"warm-up-{i}").shelf.built_ms
                await self.recommend(Ask(f"warm-up-{i}", f"warm-up-{i}", now_ms))

    async def recommend(
        self, ask: Ask, choice: Choice | None = None, strangers: Strangers | None = None
    ) -> Decision:
        """Decide what to show, from `choice` or the shelf of the shopper's arm; a stranger may get what `strangers`
        kept.

        Raises Unavailable only where there is no product at all.
        """
        choice = choice or self.choose(ask.user_id)
        shelf, run = choice.shelf, Run(self.budgets_ms)
        if not len(shelf.popular):
            raise Unavailable("the catalogue holds no product that can be bought; list items, then ask again")
        self._say_what_is_missing(run, shelf)
        shopper = await run.stage("features", self._who(run, shelf, ask), Shopper(ask.user_id))
        if strangers is None or not strangers.take(shopper, shelf.lineup, run):
            return await self._decide(run, ask, choice, shopper)
        return await strangers.answer(ask, choice, run, lambda: self._decide(run, ask, choice, shopper))

    async def _decide(self, run: Run, ask: Ask, choice: Choice, shopper: Shopper) -> Decision:
        shelf, arm, rollout = choice
        query = await run.stage("retrieve", self._query(run, shelf, shopper), Query(shelf, shopper, None))
        pool = self._retrieve(run, query, ask.k)
        features = await run.stage("features", self._features(run, ask, query, pool), None)

        prescores = await run.stage("prerank", self._score(run, shelf, "preranker", features), None)
        thin = _best(pool.fused if prescores is None else prescores, PRERANKED)
        best, rows = pool.take(thin), None if features is None else features[thin]
        scores = await run.stage("rank", self._score(run, shelf, "ranker", rows), None)

        order = _best(scores, len(best.rows)) if scores is not None else np.arange(len(best.rows))
        last = scores if scores is not None else best.fused if prescores is None else prescores[thin]
        slate, dropped, looked = self._rerank(run, query, ask, Slate(best.rows[order], last[order]))
        placed, gone = self._placed(slate, pool, shelf, ask)
        return Decision(
            ask=ask,
            placed=placed,
            model_versions={**shelf.lineup.versions, "features": self.feature_version},
            timings_ms=run.timings_ms(),
            degraded=run.degraded,
            cold_start=None if shopper.seen_before or ask.user_id in shelf.lineup.users else "new_visitor",
            shopper=shopper,
            ids=shelf.table.ids,
            pool=pool,
            preranked=None if prescores is None else (pool.rows, prescores),
            ranked=None if scores is None else (best.rows, scores),
            features=rows,
            dropped=tuple((str(shelf.table.ids[row]), rule) for row, rule in dropped + gone),
            items_at_ms=shelf.built_ms,
            manifests=shelf.lineup.manifests,
            looked=looked,
            embedding=query.embedding,
            arm=arm,
            rollout=rollout,
        )

    def _say_what_is_missing(self, run: Run, shelf: Shelf) -> None:
        if not shelf.lineup.complete:
            run.say("models_missing")
        if self.log_stalled():
            run.say("kafka_down")

    async def _who(self, run: Run, shelf: Shelf, ask: Ask) -> Shopper:
        try:
            return await self.shoppers.who(ask.user_id, shelf.table.categories, ask.now_ms)
        except Unavailable:
            run.say("redis_down")
            return Shopper(ask.user_id)

    async def _query(self, run: Run, shelf: Shelf, shopper: Shopper) -> Query:
        lineup = shelf.lineup
        if lineup.index is None or "two-tower" not in lineup.versions:
            return Query(shelf, shopper, None)
        inputs = lineup.tower_inputs(shopper.user_id, shopper.recent)
        answer = await self.models.infer("two_tower_user", lineup.versions["two-tower"], inputs)
        if answer.fell_back:
            run.say("triton_down")
        return Query(shelf, shopper, answer.values[0])

    def _retrieve(self, run: Run, query: Query, k: int) -> Pool:
        with run.timed("retrieve"):
            found: dict[str, Rows] = {}
            for source in self.sources:
                found[source.name] = np.zeros(0, np.int64)
                if run.left_s("retrieve") > 0:
                    with run.skipping("retrieve"):
                        found[source.name] = source.retrieve(query)
                else:
                    run.say("retrieve_late")
            return pool_of(found, query.shelf, k)

    async def _features(self, run: Run, ask: Ask, query: Query, pool: Pool) -> NDArray[np.float32]:
        table, known = query.shelf.table, query.shopper.tastes
        if known is not None:
            tastes = {name: column[table.category[pool.rows]] for name, column in known.items()}
        elif "redis_down" in run.degraded:
            tastes = {}
        else:
            tastes = await self._tastes(run, ask, table, pool)
        return ranking_rows(ask, query, pool, tastes)

    async def _tastes(self, run: Run, ask: Ask, table: Table, pool: Pool) -> dict[str, Scores]:
        codes, place = np.unique(table.category[pool.rows], return_inverse=True)
        try:
            columns = await self.shoppers.tastes(ask.user_id, [table.categories[code] for code in codes], ask.now_ms)
        except Unavailable:
            run.say("redis_down")
            return {}
        return {name: column[place] for name, column in columns.items()}

    async def _score(self, run: Run, shelf: Shelf, model: str, rows: NDArray[np.float32] | None) -> Scores:
        version = shelf.lineup.versions.get(model)
        if rows is None or version is None:
            raise Unavailable(f"{model} has no rows to score or is not published")
        answer = await self.models.infer(model, version, {"features": rows})
        if answer.fell_back:
            run.say("triton_down")
        return answer.values[:, 0].astype(np.float64)

    def _rerank(self, run: Run, query: Query, ask: Ask, slate: Slate) -> tuple[Slate, list[tuple[int, str]], Looked]:
        shelf, table, vectors = query.shelf, query.shelf.table, dict[int, NDArray[np.float32]]()

        def embeddings(rows: Rows) -> NDArray[np.float32] | None:
            found = shelf.embeddings(rows)
            if found is not None:
                vectors.update((int(rows[i]), found[i]) for i in np.flatnonzero(rows >= shelf.indexed))
            return found

        def in_stock(rows: Rows) -> NDArray[np.bool_]:
            return np.fromiter(map(self.in_stock, table.ids[rows].tolist()), bool, len(rows))

        before, dropped, applied, recent = slate, list[tuple[int, str]](), 0, query.recent_rows
        liked = table.category[recent]
        context = Context(
            k=ask.k, new=shelf.new, promoted=table.promoted, adult=table.adult, of_age=ask.of_age,
            category=table.category, liked=liked[liked >= 0], recent=recent,
            in_stock=in_stock, embeddings=embeddings,
        )  # fmt: skip
        with run.timed("rerank"), run.skipping("rerank"):
            slate, dropped, late, after = rerank(slate, context, self.rules, lambda: run.left_s("rerank") <= 0)
            applied = len(after)
            if late:
                run.say("rerank_skipped")
        rules = tuple(described(rule) for rule in self.rules[:applied])
        new, promoted, adult = (before.rows[flags[before.rows]] for flags in (shelf.new, table.promoted, table.adult))
        categories, known = (codes.astype(np.int64) for codes in (table.category[before.rows], context.liked))
        return slate, dropped, Looked(before.rows, rules, new, promoted, adult, categories, known, vectors)

    def _placed(
        self, slate: Slate, pool: Pool, shelf: Shelf, ask: Ask
    ) -> tuple[tuple[Placed, ...], list[tuple[int, str]]]:
        """The first k of the slate that may be shown, filled up with popular products where they are fewer.

        And what of the slate may not: it sold out since the stock rule looked, or the rules failed.
        """
        ids, new = shelf.table.ids, shelf.new
        chosen, gone = list[int](), list[tuple[int, str]]()
        for i, row in enumerate(slate.rows.tolist()):
            if len(chosen) == ask.k:
                break
            why = self._hidden(shelf, row, ask)
            if why is None:
                chosen.append(i)
            else:
                gone.append((row, why))
        rows = slate.rows[chosen].tolist()
        sources = pool.sources_of(rows) if rows else []
        placed = [
            Placed(str(ids[row]), float(slate.scores[i]), by or ("popular",), place, bool(new[row]),
                   slate.moved_by.get(row, ()))
            for place, (i, row, by) in enumerate(zip(chosen, rows, sources, strict=True), start=1)
        ]
        return (*placed, *self._filling(placed, shelf, ask)), gone

    def _hidden(self, shelf: Shelf, row: int, ask: Ask) -> str | None:
        """Why a product may not be shown to this shopper now; None where it may."""
        if shelf.table.adult[row] and not ask.of_age:
            return Age.name
        return None if self.in_stock(shelf.table.ids[row]) else SOLD_OUT

    def _filling(self, placed: Sequence[Placed], shelf: Shelf, ask: Ask) -> list[Placed]:
        lacking = ask.k - len(placed)
        if lacking <= 0:
            return []
        ids, have = shelf.table.ids, {p.item_id for p in placed}
        spare = [r for r in shelf.popular if ids[r] not in have and self._hidden(shelf, r, ask) is None][:lacking]
        floor = min((p.score for p in placed), default=0.0)
        return [
            Placed(str(ids[row]), floor, ("popular",), position, bool(shelf.new[row]), ("fill",))
            for position, row in enumerate(spare, start=len(placed) + 1)
        ]


def _best(scores: Scores, n: int) -> Rows:
    """Positions of the `n` highest scores, best first, equal ones in their order."""
    return np.argsort(-scores, kind="stable")[:n].astype(np.int64)
