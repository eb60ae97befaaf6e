"""Generators and discriminators. Each architecture is one file that cites its paper; the rest is shared layers."""
