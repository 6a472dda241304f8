"""What a check of a contract found: one line per promise, and how bad it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Literal

import msgspec

Kind = Literal["schema", "freshness", "volume", "quality"]


class Level(IntEnum):
    """How bad it is. The numbers are those of the gauge `minimart_contract_level`."""

    INSUFFICIENT_DATA = -1
    KEPT = 0
    WARN = 1
    BROKEN = 2

    @property
    def word(self) -> str:
        return self.name.lower()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`value` is what was measured, in the promise's own unit (a share, seconds, rows); None where nothing was."""

    kind: Kind
    promise: str
    level: Level
    value: float | None = None
    detail: str = ""


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level; INSUFFICIENT_DATA only where nothing could be judged."""
    return max((finding.level for finding in findings), default=Level.INSUFFICIENT_DATA)
