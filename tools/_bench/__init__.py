"""The parts of tools/benchmark.py: one module for each thing measured, and for each thing shown."""
