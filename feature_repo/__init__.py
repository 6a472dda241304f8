"""What the data means: events, features and window arithmetic. Pure; imports nothing of ours."""
