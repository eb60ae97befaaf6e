"""Export of models and samples to portable files with a model card. The entry point is `cardigan.export`."""
