"""Pictures of results, returned as bytes."""
