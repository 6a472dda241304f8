"""The aggregations that a feature may be: one small base, one file each, `family.py` lists them. Pure."""
