"""Answering over HTTP: ``valence serve``, its limits, its batches and its page."""
