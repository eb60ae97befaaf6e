"""Losses, penalties and augmentation: pure functions of tensors. Knows no network."""
