"""Data contracts: one file per topic and offline table, and the checks that execute them. Pure."""
