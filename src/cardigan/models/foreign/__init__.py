"""Readers of weights that other programs saved: nothing named in a file is imported or called, and no more is allocated than the file holds."""
