"""Image sources as uint8 tensors, and the order of training."""
