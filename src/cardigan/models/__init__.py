"""A generator, wherever it lies: snapshots, pretrained files, the hub, weights of other programs."""
