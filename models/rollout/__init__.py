"""The rollout of a challenger as pure decisions: who is served what, what happens next, and why."""
