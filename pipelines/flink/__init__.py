"""The features on Apache Flink, for the day one machine is not enough: the compiled SQL, a cluster of our own, the way back to Redis."""
