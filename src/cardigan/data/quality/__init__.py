"""What is right and wrong with a source, before anything is trained on it."""
