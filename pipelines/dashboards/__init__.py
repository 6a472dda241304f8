"""Grafana's dashboards as data: written by `make dashboards`, and every query executed by a test."""
