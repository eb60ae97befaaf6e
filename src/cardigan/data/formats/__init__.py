"""Readers for every format with access to images by index."""
