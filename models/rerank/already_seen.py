"""Moves what the shopper opened lately behind everything else: it is known, and one click away in the history."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from models.rerank.base import Context, Outcome, Slate


class AlreadySeen:
    name: ClassVar[str] = "already_seen"
    must: ClassVar[bool] = False

    def apply(self, slate: Slate, context: Context) -> Outcome:
        seen = (slate.rows[:, None] == context.recent).any(axis=1)
        return Outcome(np.concatenate([np.flatnonzero(~seen), np.flatnonzero(seen)]), np.flatnonzero(seen))
