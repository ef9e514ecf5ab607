"""Comparisons: grids of runs, who runs them, and statistics."""
