"""Devices, processes that train together, and Ray."""
