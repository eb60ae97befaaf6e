"""Training: state, step, loop. The only package that writes run directories."""
