"""Frozen networks that provide features for metrics."""
