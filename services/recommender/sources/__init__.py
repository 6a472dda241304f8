"""Where candidates come from, in the order in which `recommend.py` asks them."""

from services.recommender.sources.base import Query, Source
from services.recommender.sources.cooccurrence import CooccurrenceSource
from services.recommender.sources.new_alike import NewAlike
from services.recommender.sources.new_items import NewItems
from services.recommender.sources.trending import Trending
from services.recommender.sources.two_tower import TwoTower

SOURCES: tuple[Source, ...] = (TwoTower(), CooccurrenceSource(), Trending(), NewItems(), NewAlike())

__all__ = ["SOURCES", "Query", "Source"]
