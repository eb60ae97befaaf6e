"""What can go wrong in a training, how it is detected, and what is done about it."""
