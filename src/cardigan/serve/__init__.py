"""A generator behind an address: many ask at once, one worker draws for all of them, and the same seed gives everybody the same picture."""
