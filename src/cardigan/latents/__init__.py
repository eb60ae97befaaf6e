"""Latents: distributions, seeds, points and interpolations."""
