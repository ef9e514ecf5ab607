"""Metrics and tasks."""
