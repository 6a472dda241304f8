"""The features on Apache Flink, for the day one machine is not enough: SQL, a cluster, the way back to Redis."""
