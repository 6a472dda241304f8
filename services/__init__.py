"""Processes that do not end: one folder = one process = one container = one name."""
