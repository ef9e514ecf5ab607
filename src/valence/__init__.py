"""Valence: sentiment models where the data is unfair."""

__version__ = "0.1.0"
