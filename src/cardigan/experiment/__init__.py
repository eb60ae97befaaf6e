"""From a Config to a finished run: automatic settings, object construction, one training run."""
