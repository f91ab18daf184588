"""Benchmarks: what an accelerator changes, measured in interleaved pairs."""
