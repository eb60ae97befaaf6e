"""Numbers about pictures: tensors in, numbers out. Knows no training."""
