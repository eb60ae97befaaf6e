"""The two players. Each file is self-contained and cites its paper."""
