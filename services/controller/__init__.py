"""Takes a challenger from a drift report to champion, or back: one leader, every step with its reason."""
