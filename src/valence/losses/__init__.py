"""Losses: what a classifier's output costs. See ``LOSSES`` and ``CONTRASTS`` in ``table``."""
