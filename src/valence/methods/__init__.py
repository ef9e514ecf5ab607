"""Every method that can be trained and compared."""
