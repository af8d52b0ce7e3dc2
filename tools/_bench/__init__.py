"""What tools/benchmark.py consists of: a module for each thing measured, and each thing shown."""
