"""Losses of classifiers. See ``LOSSES`` and ``CONTRASTS`` in ``table``."""
