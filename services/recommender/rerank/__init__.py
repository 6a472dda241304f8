"""The rules that have the last word, in the order in which they speak."""

from services.recommender.rerank.already_seen import AlreadySeen
from services.recommender.rerank.base import Context, Rule, Slate, rerank
from services.recommender.rerank.freshness import Freshness
from services.recommender.rerank.mmr import Mmr
from services.recommender.rerank.promotions import Promotions
from services.recommender.rerank.stock import Stock

RULES: tuple[Rule, ...] = (Stock(), AlreadySeen(), Mmr(), Freshness(), Promotions())

__all__ = ["RULES", "Context", "Rule", "Slate", "rerank"]
