"""A generator as one HTML page that runs by itself."""
