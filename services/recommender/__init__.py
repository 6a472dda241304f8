"""Answers `POST /v1/recommendations`: which products to show this shopper now, and why."""
