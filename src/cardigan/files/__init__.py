"""Atomic writes, tensor files, and the disk cache."""
