"""What the players want: pure functions, tensors in, tensors out. Knows no network."""
