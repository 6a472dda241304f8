"""Backup and restore of MLflow's tracking store and artifacts, natively and under compose."""
