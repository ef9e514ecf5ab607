"""What a GPU must do for Valence, checked in a few minutes: ``make gpu-check``."""
