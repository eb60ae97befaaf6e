"""Sampling from trained models: the `Model` that `cardigan.load` returns."""
