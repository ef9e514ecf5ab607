"""Scoring of whole tables: readers, writers, checkpoints."""
