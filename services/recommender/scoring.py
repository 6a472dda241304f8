"""The rows that the pre-ranker and the ranker see, put together from shelf, shopper and retrieval. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from feature_repo.windows import HOUR_MS
from models.ranking_features import RankingInputs, assemble
from services.recommender.sources import Query
from services.recommender.terms import Ask, Pool, Scores


def ranking_rows(ask: Ask, query: Query, pool: Pool, tastes: Mapping[str, Scores]) -> NDArray[np.float32]:
    """float32 [n, features] of the pool's candidates, NaN where unknown. `tastes` are [n] each."""
    shelf, rows = query.shelf, pool.rows
    table, recent = shelf.table, query.recent_rows
    items = shelf.activity.of(rows)
    items |= {"price_cents": table.price_cents[rows], "age_hours": (ask.now_ms - table.listed_at[rows]) / HOUR_MS}
    at = datetime.fromtimestamp(ask.now_ms / 1000, UTC)
    return assemble(
        RankingInputs(
            n=len(rows),
            user=query.shopper.features,
            items=items,
            user_category=tastes,
            retrieval=_retrieval(query, pool),
            category=table.category[rows],
            item_ids=rows,
            recent_categories=tuple(table.category[recent].tolist()),
            recent_items=tuple(recent.tolist()),
            hour=at.hour + at.minute / 60,
            weekday=float(at.weekday()),
            device=ask.device,
        )
    )


def _retrieval(query: Query, pool: Pool) -> dict[str, NDArray[np.float64]]:
    """Every source's score of every candidate, whoever brought it, and its place in each source's list."""
    shelf, rows = query.shelf, pool.rows
    columns = {f"{name}_rank": rank for name, rank in pool.ranks.items()}
    columns["popularity_score"] = shelf.table.popularity[rows]
    index = shelf.lineup.index
    if index is not None and query.embedding is not None:
        known = rows < len(index)  # the ranker was trained without a score for items newer than the index
        scores = columns["two_tower_score"] = np.full(len(rows), np.nan)
        scores[known] = index.vectors(rows[known]) @ query.embedding
    if query.votes is not None:
        columns |= {name: one.astype(np.float64) for name, one in query.votes.features(rows).items()}
    return columns
