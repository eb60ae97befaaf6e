"""What leaves Cardigan: files that run anywhere, are safe to open, and say what they are. The verb is `cardigan.export`."""
