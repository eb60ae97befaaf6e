"""A generator as one self-contained HTML page."""
