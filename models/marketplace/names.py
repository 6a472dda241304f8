"""The words of the marketplace: categories with price levels and complements, brands, styles and product titles."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Category(NamedTuple):
    name: str
    median_euros: float
    share: float  # of the catalogue and of demand, before normalising
    goes_with: int  # row of the category that shoppers look at next
    nouns: str


CATEGORIES: Final[tuple[Category, ...]] = (
    Category("Coffee & Tea", 12, 1.4, 1, "Espresso Beans|Green Tea|Cold Brew Kit|Breakfast Tea|Filter Coffee|Matcha"),
    Category("Kitchen", 35, 1.6, 0, "Kettle|Chef Knife|Cast Iron Pan|Mixing Bowls|Cutting Board|Blender|Storage Jars"),
    Category("Groceries", 8, 1.5, 13, "Olive Oil|Granola|Pasta|Dark Chocolate|Honey|Chilli Sauce|Almonds|Oat Biscuits"),
    Category("Headphones", 90, 1.2, 4, "Earbuds|Studio Headphones|Headset|Neckband|Noise Cancellers|Earphone Case"),
    Category("Phone Accessories", 19, 1.3, 3, "Phone Case|Fast Charger|Power Bank|Car Mount|USB-C Cable|Ring Light"),
    Category("Computers", 420, 0.8, 6, "Laptop|Monitor|Mini PC|Tablet|Docking Station|External SSD"),
    Category("Desk & Office", 45, 1.0, 5, "Desk Lamp|Keyboard|Office Chair|Monitor Arm|Notebook Set|Footrest"),
    Category("Books", 16, 1.6, 8, "Detective Novel|Cookbook|Travel Guide|Science Reader|Biography|Poetry Book|Atlas"),
    Category("Board Games", 32, 0.8, 7, "Strategy Game|Card Game|Puzzle|Dice Set|Party Game|Chess Set"),
    Category("Toys", 24, 1.1, 10, "Wooden Train|Building Blocks|Plush Bear|Marble Run|Doll House|Kite"),
    Category("Baby", 28, 0.8, 9, "Baby Monitor|Bib Set|Play Mat|Carrier|Bottle Warmer|Night Light"),
    Category("Running", 75, 1.0, 12, "Running Shoes|Running Socks|Sports Watch|Running Vest|Headband|Hydration Belt"),
    Category("Yoga & Fitness", 30, 0.9, 11, "Yoga Mat|Kettlebell|Resistance Bands|Foam Roller|Jump Rope|Water Bottle"),
    Category("Wine & Spirits", 22, 0.5, 2, "Red Wine|Dry Gin|Single Malt|Sparkling Wine|Riesling|Vermouth"),
    Category("Camping", 60, 0.8, 15, "Tent|Sleeping Bag|Camp Stove|Head Torch|Hammock|Cool Box"),
    Category("Cycling", 55, 0.9, 14, "Bike Light|Cycling Jersey|Bike Lock|Pannier|Helmet|Floor Pump"),
    Category("Garden", 26, 0.9, 17, "Planter|Secateurs|Garden Hose|Seed Box|Bird Feeder|Garden Chair"),
    Category("Home Decor", 38, 1.3, 16, "Table Lamp|Wall Print|Throw Blanket|Cushion|Mirror|Vase|Rug"),
    Category("Bedding", 58, 0.8, 17, "Duvet|Pillow|Linen Sheets|Mattress Topper|Bedspread|Pillowcase"),
    Category("Skin Care", 21, 1.3, 20, "Face Cream|Sunscreen|Serum|Cleanser|Hand Balm|Clay Mask"),
    Category("Fragrance", 64, 0.7, 19, "Eau de Parfum|Scented Candle|Cologne|Room Diffuser|Body Mist"),
    Category("Shoes", 80, 1.2, 22, "Trainers|Chelsea Boots|Sandals|Loafers|Slippers|Hiking Boots"),
    Category("Clothing", 42, 1.7, 21, "Linen Shirt|Rain Jacket|Merino Jumper|Jeans|Summer Dress|Hoodie|Scarf"),
    Category("Pet Supplies", 23, 1.0, 16, "Dog Lead|Cat Tree|Pet Bed|Chew Toy|Food Bowl|Litter Box"),
)
ADULT: Final = frozenset({"Wine & Spirits"})
STYLES: Final = (
    "Minimalist", "Vintage", "Rugged", "Compact", "Premium", "Playful",
    "Classic", "Eco", "Smart", "Travel", "Artisan", "Pro",
)  # fmt: skip
BRANDS: Final = (
    "Norvik", "Almeda", "Quill & Co", "Terrano", "Luma", "Brisk", "Hartwell", "Osprey Lane", "Kinoko", "Vesper",
    "Fjordic", "Pampa", "Soleil", "Oakmere", "Tindra", "Calico", "Bergamot", "Rookery", "Nimbus", "Zephyr",
    "Maison Rive", "Kestrel", "Copperhill", "Sable", "Aurelia", "Driftwood", "Halcyon", "Juniper", "Marlow", "Pine",
)  # fmt: skip
VARIANTS: Final = ("", "", "", "", " Mini", " XL", " 2.0", " Set", " Duo", " Plus")
SELLER_WORDS: Final = ("Trading", "Store", "Direct", "Market", "Goods", "Supply")


def titles(category: NDArray[np.int64], style: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.str_]:
    """Product titles [n], e.g. `Norvik Vintage Kettle Mini`."""
    nouns = [c.nouns.split("|") for c in CATEGORIES]
    brand, noun, variant = (rng.integers(0, 2**31, len(category)) for _ in range(3))
    return np.array([
        f"{BRANDS[b % len(BRANDS)]} {STYLES[s]} {nouns[c][n % len(nouns[c])]}{VARIANTS[v % len(VARIANTS)]}"
        for c, s, b, n, v in zip(category, style, brand, noun, variant, strict=True)
    ])
