"""What a trained model has learned: paths through its latents, directions, inversion, what D sees and wants. Trains nothing."""
