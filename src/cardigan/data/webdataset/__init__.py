"""Tar shards: sets larger than the disk, read one shard after another."""
