"""Benchmarks for a GPU or TPU; they also run on a CPU."""
