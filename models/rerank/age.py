"""Drops what is for adults only, unless the shopper is known to be of age."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from models.rerank.base import Context, Outcome, Slate, nothing_moved


class Age:
    name: ClassVar[str] = "age"
    must: ClassVar[bool] = True

    def apply(self, slate: Slate, context: Context) -> Outcome:
        if context.of_age:
            return nothing_moved(slate)
        return Outcome(np.flatnonzero(~context.adult[slate.rows]), np.zeros(0, np.int64))
