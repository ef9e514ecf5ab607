"""Checks of labelled rows before any training."""
