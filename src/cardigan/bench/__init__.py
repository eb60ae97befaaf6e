"""Time to quality: how long training takes until the score reaches a fixed target (`cardigan bench`)."""
