"""Faults of a training run: how they are detected, and what follows."""
