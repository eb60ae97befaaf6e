"""The game being played: state, step, loop. The only writer of run directories."""
