"""The composed stack: the same verbs as the native one, from Docker, `make` and Python's standard library alone."""
