"""The run directory: files that training writes and all other commands read."""
