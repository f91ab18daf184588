"""Benchmarks that count instructions, in a guest whose clock moves by them alone."""
