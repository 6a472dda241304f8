"""The maths: arrays in, arrays out. No network, no clock, no environment; imports nothing of ours."""
