"""The parts of `benchmarks/gpu.py`: what is checked and measured on one GPU, one part a file."""
