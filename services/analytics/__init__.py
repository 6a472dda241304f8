"""Kafka to ClickHouse: decisions, what came of them, drift and rollouts, each record once in effect."""
