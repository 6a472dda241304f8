"""One simple drawing per category, in a box of 100 x 100. `{m}` main colour, `{d}` dark, `{l}` light, `{a}` accent."""

from __future__ import annotations

from typing import Final


def _rect(x: float, y: float, w: float, h: float, r: float, fill: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}" fill="{{{fill}}}"/>'


def _dot(x: float, y: float, r: float, fill: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{r}" fill="{{{fill}}}"/>'


def _path(d: str, fill: str) -> str:
    return f'<path d="{d}" fill="{{{fill}}}"/>'


def _line(d: str, stroke: str, width: float = 6) -> str:
    return (
        f'<path d="{d}" fill="none" stroke="{{{stroke}}}" stroke-width="{width}" stroke-linecap="round" '
        'stroke-linejoin="round"/>'
    )


GLYPHS: Final[dict[str, str]] = {
    "Coffee & Tea": _line("M70 48h8a11 11 0 0 1 0 22h-9", "m")
    + _path("M22 42h50v24a20 20 0 0 1-20 20H42a20 20 0 0 1-20-20z", "m")
    + _rect(16, 88, 62, 5, 2.5, "d")
    + _line("M37 32c-5-7 5-9 0-16M52 32c-5-7 5-9 0-16", "a", 4),
    "Kitchen": _path("M24 44h52v32a12 12 0 0 1-12 12H36a12 12 0 0 1-12-12z", "m")
    + _rect(18, 36, 64, 9, 4.5, "d")
    + _dot(50, 30, 6, "a")
    + _rect(8, 52, 16, 7, 3.5, "d")
    + _rect(76, 52, 16, 7, 3.5, "d"),
    "Groceries": _path("M28 40h44l-4 44a6 6 0 0 1-6 5H38a6 6 0 0 1-6-5z", "m")
    + _path("M36 40c-8-16 2-24 8-26 4 8 4 18 0 26z", "a")
    + _path("M48 40c-2-14 8-24 18-24 2 10-4 20-12 24z", "d")
    + _rect(38, 56, 24, 14, 3, "l"),
    "Headphones": _line("M22 62V52a28 28 0 0 1 56 0v10", "d", 7)
    + _rect(14, 56, 18, 28, 8, "m")
    + _rect(68, 56, 18, 28, 8, "m")
    + _rect(26, 60, 6, 20, 3, "a")
    + _rect(68, 60, 6, 20, 3, "a"),
    "Phone Accessories": _rect(30, 12, 40, 76, 8, "d")
    + _rect(34, 19, 32, 58, 3, "l")
    + _dot(50, 82, 3, "l")
    + _path("M53 30 42 50h8l-3 16 13-21h-8z", "a"),
    "Computers": _rect(20, 24, 60, 42, 5, "d")
    + _rect(25, 29, 50, 32, 2, "l")
    + _path("M10 70h80l-5 10H15z", "m")
    + _line("M34 50l8-8 7 7 14-13", "a", 4),
    "Desk & Office": _path("M36 20 66 34 58 48 30 36z", "m")
    + _line("M42 40 62 62 44 86", "d", 5)
    + _rect(26, 84, 40, 7, 3.5, "d")
    + _path("M30 38 18 60 50 58z", "a"),
    "Books": _rect(20, 66, 60, 16, 3, "m")
    + _rect(26, 48, 54, 16, 3, "d")
    + _rect(18, 30, 54, 16, 3, "a")
    + _rect(26, 35, 20, 5, 2, "l")
    + _rect(34, 53, 20, 5, 2, "l")
    + _rect(30, 71, 20, 5, 2, "l"),
    "Board Games": _rect(22, 30, 46, 46, 9, "m")
    + _dot(34, 42, 5, "l")
    + _dot(56, 64, 5, "l")
    + _dot(45, 53, 5, "l")
    + _path("M74 48a9 9 0 0 1 8 12l6 26H62l6-26a9 9 0 0 1 6-12z", "d")
    + _dot(75, 46, 8, "d"),
    "Toys": _rect(18, 54, 30, 30, 4, "m")
    + _rect(52, 54, 30, 30, 4, "d")
    + _rect(35, 20, 30, 30, 4, "a")
    + _dot(33, 69, 7, "l")
    + _path("M67 60 76 77H58z", "l")
    + _rect(44, 29, 12, 12, 2, "l"),
    "Baby": _rect(36, 36, 28, 50, 10, "l")
    + _rect(36, 56, 28, 30, 10, "m")
    + _rect(32, 29, 36, 10, 4, "d")
    + _path("M42 29c0-6 4-6 4-11a4 4 0 0 1 8 0c0 5 4 5 4 11z", "a"),
    "Running": _path("M12 62c10 0 16-8 18-20l16 6 12 14c6 4 28 4 30 14v4H12z", "m")
    + _rect(10, 78, 80, 9, 4.5, "d")
    + _line("M44 54l7-5M51 61l7-5", "l", 3.5)
    + _line("M20 70h24", "a", 4),
    "Yoga & Fitness": _rect(10, 40, 10, 26, 4, "d")
    + _rect(21, 32, 12, 42, 5, "m")
    + _rect(67, 32, 12, 42, 5, "m")
    + _rect(80, 40, 10, 26, 4, "d")
    + _rect(33, 49, 34, 8, 2, "a"),
    "Wine & Spirits": _path("M30 14h30c4 22 0 38-15 38S26 36 30 14z", "l")
    + _path("M29 28h32c0 14-4 24-16 24S29 42 29 28z", "m")
    + _rect(42, 50, 6, 34, 2, "d")
    + _rect(30, 83, 30, 5, 2.5, "d")
    + _dot(74, 74, 7, "a")
    + _dot(66, 64, 6, "a"),
    "Camping": _path("M50 22 90 84H10z", "m")
    + _path("M50 44 70 84H30z", "d")
    + _path("M50 44 58 84H42z", "l")
    + _dot(78, 24, 8, "a"),
    "Cycling": _line("M26 66 42 40h26l8 26M42 40 54 66H26M54 66 68 40M38 32h10M68 40l-3-10h10", "d", 4.5)
    + '<circle cx="26" cy="66" r="17" fill="none" stroke="{m}" stroke-width="6"/>'
    '<circle cx="76" cy="66" r="17" fill="none" stroke="{m}" stroke-width="6"/>' + _dot(54, 66, 5, "a"),
    "Garden": _path("M28 58h44l-6 30H34z", "a")
    + _rect(24, 50, 52, 10, 3, "d")
    + _line("M50 50V26", "m", 5)
    + _path("M50 38C34 40 28 30 28 20c14-2 22 6 22 18z", "m")
    + _path("M50 32c0-12 8-20 22-20 2 12-6 22-22 20z", "m"),
    "Home Decor": _path("M42 16h16v12c12 8 18 18 18 30 0 16-10 30-26 30S24 74 24 58c0-12 6-22 18-30z", "m")
    + _rect(38, 12, 24, 7, 3.5, "d")
    + _line("M27 52c12 8 34 8 46 0M26 64c12 8 36 8 48 0", "l", 4),
    "Bedding": _rect(12, 54, 76, 22, 5, "m")
    + _rect(18, 40, 28, 17, 8, "l")
    + _rect(50, 40, 28, 17, 8, "l")
    + _rect(12, 24, 6, 62, 3, "d")
    + _rect(82, 48, 6, 38, 3, "d")
    + _rect(12, 60, 76, 5, 0, "a"),
    "Skin Care": _rect(30, 42, 40, 46, 8, "m")
    + _rect(42, 28, 16, 14, 2, "d")
    + _path("M42 20h24v7H42z", "d")
    + _path("M50 54c8 9 9 13 9 17a9 9 0 0 1-18 0c0-4 1-8 9-17z", "l"),
    "Fragrance": _rect(26, 44, 48, 42, 10, "m")
    + _rect(34, 52, 32, 26, 5, "l")
    + _rect(42, 28, 16, 16, 2, "d")
    + _dot(50, 24, 8, "a")
    + _line("M66 24h6M66 32l6 4M66 16l6-4", "a", 3),
    "Shoes": _path("M30 18h24v30c10 8 32 6 34 24v6H30z", "m")
    + _rect(26, 77, 64, 9, 4, "d")
    + _rect(30, 18, 24, 9, 3, "a")
    + _line("M48 42h8M48 50h10", "l", 3.5),
    "Clothing": _path("M36 18 18 28 8 48l14 6 6-8v42h44V46l6 8 14-6-10-20-18-10c-4 8-24 8-28 0z", "m")
    + _path("M36 18c4 8 24 8 28 0l-4-2c-4 4-16 4-20 0z", "d")
    + _rect(54, 44, 12, 12, 2, "a"),
    "Pet Supplies": _path("M50 50c14 0 24 14 24 24 0 12-14 12-24 8-10 4-24 4-24-8 0-10 10-24 24-24z", "m")
    + _dot(24, 46, 9, "d")
    + _dot(41, 28, 10, "a")
    + _dot(61, 28, 10, "a")
    + _dot(77, 46, 9, "d"),
}
OTHERS: Final = (
    _path("M50 14 86 34v36L50 90 14 70V34z", "m")
    + _path("M50 14 86 34 50 54 14 34z", "l")
    + _path("M50 54v36L14 70V34z", "d"),
    _path("M24 38h52l6 48H18z", "m") + _line("M36 46V32a14 14 0 0 1 28 0v14", "d", 5) + _dot(50, 66, 8, "l"),
    _rect(18, 36, 64, 48, 6, "m")
    + _rect(14, 28, 72, 16, 5, "d")
    + _rect(45, 28, 10, 56, 0, "a")
    + _path("M50 28C34 28 30 14 40 14c6 0 10 8 10 14zm0 0c16 0 20-14 10-14-6 0-10 8-10 14z", "a"),
)
