"""Benchmarks of what runs on the host or on a CPU, and counts that need no device."""
