"""The monitor: alerts become incidents that people can read, and programs that end show their metrics here."""
