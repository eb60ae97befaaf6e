"""Charts, image grids and animations, returned as bytes."""
