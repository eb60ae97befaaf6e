"""Tar shards: datasets larger than the disk, streamed shard by shard."""
