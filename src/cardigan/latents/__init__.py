"""What a generator starts from: distributions, seeds, points and the ways between them."""
