"""Kafka to Parquet: the offline store, exactly once by the names of its files."""
