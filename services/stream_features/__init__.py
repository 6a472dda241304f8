"""Events to sliding windows in Redis: counted exactly once, readable through Feast."""
