"""The console: one page where an operator sees the platform, and the few buttons that change it. It decides nothing."""
