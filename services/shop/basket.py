"""The cart, kept in a cookie of the shopper's browser: `item~quantity!item~quantity`. Pure: knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from feature_repo.events import is_id

COOKIE: Final = "cart"
MOST_LINES: Final = 30
MOST_OF_ONE: Final = 20


def read(text: str) -> dict[str, int]:
    """Item -> quantity. Whatever is not a line of a cart is left out: the cookie is the browser's to change."""
    lines: dict[str, int] = {}
    for part in text[:4000].split("!")[:MOST_LINES]:
        item_id, _, quantity = part.partition("~")
        if is_id(item_id) and quantity.isascii() and quantity.isdigit() and len(quantity) < 4 and int(quantity):
            lines[item_id] = min(int(quantity), MOST_OF_ONE)
    return lines


def write(lines: Mapping[str, int]) -> str:
    return "!".join(f"{item_id}~{quantity}" for item_id, quantity in lines.items())


def added(lines: Mapping[str, int], item_id: str) -> dict[str, int]:
    """With one more of an item; unchanged where the cart or the line is full."""
    if item_id not in lines and len(lines) >= MOST_LINES:
        return dict(lines)
    return {**lines, item_id: min(lines.get(item_id, 0) + 1, MOST_OF_ONE)}


def removed(lines: Mapping[str, int], item_id: str) -> dict[str, int]:
    return {i: q for i, q in lines.items() if i != item_id}
