"""How anything is written and cached: whole files by rename, tensors, hashes, the disk cache."""
