"""Measurements: every public number comes out of here, with its raw samples, hardware, commit and seed."""
