"""Parity, quality measures, benchmarks."""
