"""Readers of weights from other programs.

Nothing named in a file is imported or called, and allocations are at most the file's size.
"""
