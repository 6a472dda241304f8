"""Drawn columns as the bytes of events: required fields always, optional ones as old and new senders have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

TOPICS: Final = ("shop.impressions", "shop.clicks", "shop.carts", "shop.orders", "shop.payments")
CATEGORY: Final = ("tea", "toys", "books", "garden", "toys & games", "café", "schuhe für kinder", "おもちゃ", "audio",
                   "baby", "sports", "a")
# What older and newer senders add to the envelope.
EXTRAS: Final = ("", "", "", '"version":1,', '"session_id":null,', '"country":"DE","device":"phone",',
                 '"version":1,"session_id":"s-1","country":"FR",', '"device":"desktop",')


@dataclass(frozen=True)
class Drawn:
    """One entry per record in each column; `dice` decides about what has no column of its own."""

    event: np.ndarray
    topic: np.ndarray
    event_time: np.ndarray
    user: np.ndarray
    item: np.ndarray
    category: np.ndarray
    price: np.ndarray
    dice: np.ndarray

    def taken(self, at: np.ndarray) -> Drawn:
        """The records at these places."""
        return Drawn(**{name: column[at] for name, column in vars(self).items()})


def payloads(drawn: Drawn, bad: np.ndarray, kinds: Sequence[str]) -> list[bytes]:
    """The JSON of each record; where `bad` is not -1, one that no reader may count: `kinds[bad]` of SPOILED."""
    columns = [column.tolist() for column in vars(drawn).values()]
    out = [_WRITERS[topic](f'"event_id":"e{event}","event_time":{when},"user_id":"u{user}",{EXTRAS[dice & 7]}',
                           item, category, price, dice >> 3).encode()
           for event, topic, when, user, item, category, price, dice in zip(*columns, strict=True)]
    for at in np.flatnonzero(bad >= 0).tolist():
        out[at] = SPOILED[kinds[bad[at]]](out[at])
    return out


def _product(item: int, category: int, price: int, dice: int) -> str:
    seller = f',"seller_id":"s{item % 40}"' if dice % 5 > 1 else ""  # senders of before sellers do not say it
    return f'"item_id":"i{item}","category":"{CATEGORY[category]}","price_cents":{price}{seller}'


def _shown(head: str, item: int, category: int, price: int, dice: int) -> str:
    ids = ",".join(f'"i{(item + (dice >> 4) % 7 * n * n) % (item + 40)}"' for n in range(4 + dice % 8))
    return f'{{"type":"products_shown",{head}"request_id":"r{dice}","item_ids":[{ids}]}}'


def _clicked(head: str, item: int, category: int, price: int, dice: int) -> str:
    feed = f',"request_id":"r{dice}","position":{1 + dice % 20}' if dice % 3 else ""
    return f'{{"type":"product_clicked",{head}{_product(item, category, price, dice)}{feed}}}'


def _carted(head: str, item: int, category: int, price: int, dice: int) -> str:
    many = f',"quantity":{1 + dice % 4}' if dice % 2 else ""
    return f'{{"type":"product_added_to_cart",{head}{_product(item, category, price, dice)}{many}}}'


def _ordered(head: str, item: int, category: int, price: int, dice: int) -> str:
    many = f',"quantity":{1 + dice % 3}' if dice % 5 else ""
    lines = ",".join(f"{{{_product(item + n, (category + n) % len(CATEGORY), price, dice)}{many}}}"
                     for n in range(1 + dice % 3))
    return f'{{"type":"order_placed",{head}"order_id":"o{dice}","lines":[{lines}]}}'


def _paid(head: str, item: int, category: int, price: int, dice: int) -> str:
    device = f',"device_id":"d{dice % 97}"' if dice % 4 else ""
    merchant = min(item, 30)  # one giant, whose distinct cards and payers outgrow an exact count
    return (f'{{"type":"payment_made",{head}"payment_id":"p{dice}","order_id":"o{dice}","merchant_id":"m{merchant}",'
            f'"amount_cents":{price},"currency":"EUR","card_id":"c{(item * 7 + dice % 200) % 900}"{device}}}')


_WRITERS: Final[tuple[Callable[[str, int, int, int, int], str], ...]] = (_shown, _clicked, _carted, _ordered, _paid)
SPOILED: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "empty": lambda good: b"",
    "not UTF-8": lambda good: b"\xff\xfe" + good,
    "not JSON": lambda good: b"not json",
    "cut off": lambda good: good[:-2],
    "a field missing": lambda good: good.replace(b'"user_id"', b'"user"'),
    "a field of another type": lambda good: good.replace(b'"event_time":', b'"event_time":"x",'),
    "a version from the future": lambda good: good[:-1] + b',"version":99}',
    "a field that nobody knows": lambda good: good[:-1] + b',"no_such_field":1}',
}
