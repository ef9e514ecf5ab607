"""Run folders, and the one function that trains and tests."""
