"""The rules that have the last word, in the order in which they speak: applied by serving, and again by replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from models.rerank.age import Age
from models.rerank.already_seen import AlreadySeen
from models.rerank.base import Context, Reranked, Rule, Slate, rerank
from models.rerank.category_mix import CategoryMix
from models.rerank.freshness import Freshness
from models.rerank.mmr import Mmr
from models.rerank.promotions import Promotions
from models.rerank.stock import Stock

SOLD_OUT: Final = "sold_out"
"""What drops a product that sold out after the stock rule had looked."""
RULES: tuple[Rule, ...] = (Stock(), Age(), AlreadySeen(), Mmr(), CategoryMix(), Freshness(), Promotions())
_KINDS: Final[Mapping[str, Any]] = {type(rule).name: type(rule) for rule in RULES}


def described(rule: Rule) -> dict[str, Any]:
    """A rule as a decision's record names it: `name` and its numbers."""
    return {"name": rule.name, **vars(rule)}


def rule_of(description: Mapping[str, Any]) -> Rule:
    """The rule that `described` named. Raises KeyError or TypeError for one that this program does not know."""
    numbers = {name: value for name, value in description.items() if name != "name"}
    rule: Rule = _KINDS[description["name"]](**numbers)
    return rule


__all__ = [
    "RULES", "SOLD_OUT", "Age", "Context", "Reranked", "Rule", "Slate", "Stock", "described", "rerank", "rule_of",
]  # fmt: skip
