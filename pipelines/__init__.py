"""Programs that end and leave an artifact."""
