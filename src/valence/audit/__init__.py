"""Checks of labeled rows before any training."""
