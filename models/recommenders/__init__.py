"""Retrieval models on sequences of items: one base, one file per model, and the blend. Evaluation compares them

To add one: a file with a class that implements the base, and a line in MODELS. The shared checks run over every member.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from models.recommenders.base import Recommender
from models.recommenders.content import ContentProfile
from models.recommenders.ials import ImplicitALS
from models.recommenders.linear import LinearAutoencoder
from models.recommenders.popularity import Popularity
from models.recommenders.self_attention import SelfAttention
from models.recommenders.transitions import Transitions
from models.recommenders.two_tower import TwoTowers

MODELS: Final[Mapping[str, type[Recommender]]] = {
    model.name: model
    for model in (Popularity, Transitions, LinearAutoencoder, ImplicitALS, ContentProfile, TwoTowers, SelfAttention)
}
