"""The two players. Each network is one file, built of the parts beside it, and cites its paper."""
