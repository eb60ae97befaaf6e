"""The operations of augmentation, one family per file. Pure functions of images and uniform random numbers."""
