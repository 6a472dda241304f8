"""The native stack: every part as a process of this machine, started from wheels, without Docker or Java."""
