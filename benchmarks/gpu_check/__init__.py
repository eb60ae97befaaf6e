"""The parts of `benchmarks/gpu.py`: checks and measurements on one GPU, one part per file."""
