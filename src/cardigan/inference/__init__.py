"""What `cardigan.load` returns."""
