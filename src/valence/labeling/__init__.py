"""Labeling: which row next, what people decided, and how good the labels make a model."""
