"""From a Config to a training: what is chosen, what is built, and one run from start to end."""
