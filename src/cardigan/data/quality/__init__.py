"""Checks of a source before training."""
