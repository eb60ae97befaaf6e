"""The run directory: what training leaves behind, and what everyone else reads."""
