"""Pictures from outside, as uint8 tensors, and their order."""
