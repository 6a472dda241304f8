"""All retrieval models by name."""

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
