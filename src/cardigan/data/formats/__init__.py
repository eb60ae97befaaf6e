"""Readers of every kind of source whose pictures can be asked for by number."""
