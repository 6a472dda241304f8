"""Which arm of an experiment a shopper belongs to: a fixed place in [0, 1) by shopper and experiment, no memory needed.

Canary takes the places below the share, control the same share from the other end, so that both have one size and began
at one moment; a shopper who is in the canary at 5 % is still in it at 25 %.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

Arm = Literal["champion", "control", "canary"]
ARMS: Final[tuple[Arm, ...]] = ("champion", "control", "canary")


def fraction(user_id: str, salt: str) -> float:
    """The shopper's place in [0, 1): the first 8 bytes of BLAKE2b(salt + user_id) over 2^64."""
    digest = hashlib.blake2b((salt + user_id).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def arm_of(user_id: str, salt: str, percent: float) -> Arm:
    """The arm at a canary share of `percent` (0 to 100). Beyond 50 % there is no room left for a control."""
    if percent <= 0:
        return "champion"
    place, share = fraction(user_id, salt), percent / 100
    if place < share:
        return "canary"
    return "control" if percent <= 50 and place >= 1 - share else "champion"


def shares_of(percent: float) -> dict[str, float]:
    """Percent of the shoppers in each arm; they add up to 100."""
    control = percent if percent <= 50 else 0.0
    return {"champion": 100.0 - percent - control, "control": control, "canary": float(percent)}
