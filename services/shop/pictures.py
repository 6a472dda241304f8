"""Product pictures, drawn: the category gives the colours and the glyph, the item id the composition. Pure."""

from __future__ import annotations

import colorsys
import hashlib
from typing import Final

from services.shop.glyphs import GLYPHS, OTHERS

_HUES: Final = {name: (i * 137.508 + 24) % 360 for i, name in enumerate(GLYPHS)}


def picture(item_id: str, category: str) -> str:
    """An SVG document of 400 x 300; the same item always looks the same. Only drawn shapes: no text from outside."""
    seed = hashlib.sha256(item_id.encode()).digest()
    home = hashlib.sha256(category.encode()).digest()
    hue = _HUES.get(category, home[0] / 256 * 360) + (seed[0] / 255 - 0.5) * 22
    warm = (hue + (150 if seed[1] & 1 else 40)) % 360
    paper, back = _colour(hue, 0.42, 0.925), _colour(hue, 0.40, 0.845)
    colours = {
        "m": _colour(hue, 0.40, 0.50 + (seed[2] / 255 - 0.5) * 0.10),
        "d": _colour(hue, 0.38, 0.29),
        "l": _colour(hue, 0.50, 0.96),
        "a": _colour(warm, 0.58, 0.64),
    }
    glyph = (GLYPHS.get(category) or OTHERS[home[1] % len(OTHERS)]).format(**colours)
    size = 1.95 + seed[3] / 255 * 0.25
    x, y = 200 - 50 * size + (seed[4] / 255 - 0.5) * 20, 152 - 52 * size
    flip = f"translate({x + 100 * size:.1f} {y:.1f}) scale({-size:.3f} {size:.3f})"
    place = flip if seed[5] & 1 else f"translate({x:.1f} {y:.1f}) scale({size:.3f})"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 300" role="img">'
        f'<rect width="400" height="300" fill="{paper}"/>{_scene(seed, back)}'
        f'<ellipse cx="200" cy="250" rx="104" ry="9" fill="{colours["d"]}" opacity=".13"/>'
        f'<g transform="{place}">{glyph}</g></svg>'
    )


def _scene(seed: bytes, colour: str) -> str:
    """What stands behind the glyph: a sun, an arch, hills, a table, two discs or stripes."""
    shift = seed[6] / 255
    match seed[7] % 6:
        case 0:
            return f'<circle cx="{130 + 140 * shift:.0f}" cy="140" r="112" fill="{colour}"/>'
        case 1:
            return f'<path d="M{90 + 20 * shift:.0f} 300V150a{105} {105} 0 0 1 210 0v150z" fill="{colour}"/>'
        case 2:
            return (
                f'<path d="M0 {200 + 30 * shift:.0f}C90 120 170 250 270 180S370 150 400 170V300H0z" fill="{colour}"/>'
            )
        case 3:
            return f'<path d="M0 {205 + 20 * shift:.0f}H400V300H0z" fill="{colour}"/>'
        case 4:
            return (
                f'<circle cx="{70 + 60 * shift:.0f}" cy="90" r="76" fill="{colour}"/>'
                f'<circle cx="{300 + 40 * shift:.0f}" cy="210" r="94" fill="{colour}"/>'
            )
        case _:
            bars = "".join(f'<path d="M{-60 + i * 96} 300 {60 + i * 96} 0h44L{-16 + i * 96} 300z"/>' for i in range(5))
            return f'<g fill="{colour}" opacity=".7">{bars}</g>'


def _colour(hue: float, saturation: float, lightness: float) -> str:
    r, g, b = colorsys.hls_to_rgb(hue % 360 / 360, lightness, saturation)
    return f"#{round(r * 255):02x}{round(g * 255):02x}{round(b * 255):02x}"
