"""What every server of ours needs at its door: who is welcome, how much may be sent, who is hung up on. Knows no route."""
