"""Lengths of time as people write them: `90s`, `10m`, `1h`, `7d`."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import Final

UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> int:
    """`90s`, `10m`, `1h`, `7d` as seconds. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\d+)(s|m|min|h|d)", text.strip())
    if match is None or int(match[1]) == 0:
        raise ArgumentTypeError(f"{text!r}: write a length like 90s, 10m, 1h or 7d")
    return int(match[1]) * UNITS[match[2]]
