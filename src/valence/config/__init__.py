"""What is trained and how, as values."""
