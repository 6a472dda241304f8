"""Drills: break the running platform on purpose, watch it heal, and prove from its answers that it did."""
