"""Metrics of generated images. Independent of training."""
