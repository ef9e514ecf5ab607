"""Atomic files, locks and the cache."""
