"""Who answers whom: the champion's shelf, the challenger's, and the shares of the rollout under way. Values only.

A request takes one shelf at its start and keeps it, so an answer never mixes versions.
"""

from __future__ import annotations

from typing import NamedTuple

from adapters.pointers import Rollout
from models.rollout.shares import Arm, arm_of
from services.recommender.shelf import Shelf


class Choice(NamedTuple):
    """One request's shelf, and why it is that one."""

    shelf: Shelf
    arm: Arm = "champion"
    rollout: str | None = None


class Roles(NamedTuple):
    """`challenger` is None where there is none or it was refused: then the champion answers its share too."""

    champion: Shelf
    challenger: Shelf | None = None
    rollout: Rollout = Rollout()

    def choose(self, user_id: str) -> Choice:
        """The shelf that answers this shopper."""
        if self.challenger is None:
            return Choice(self.champion, "champion", self.rollout.rollout)
        arm = arm_of(user_id, self.rollout.salt, self.rollout.canary_percent)
        shelf = self.challenger if arm == "canary" else self.champion
        return Choice(shelf, arm, self.rollout.rollout)
