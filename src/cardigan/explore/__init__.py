"""Tools that inspect a trained model: latent paths, directions, inversion, saliency, feature probes. Trains nothing."""
