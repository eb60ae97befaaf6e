"""The colors of charts."""

SERIES_COLORS = ("#2b6cb0", "#c05621", "#2f855a", "#97266d", "#744210")
"""Line colors in order. They are distinguishable with color blindness."""
