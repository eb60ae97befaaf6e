"""The colors of charts."""

SERIES_COLORS = ("#2b6cb0", "#c05621", "#2f855a", "#97266d", "#744210")
"""One per line of a chart, in order; each differs from the others for people with color blindness too."""
