"""Frozen networks whose features metrics use."""
