"""Namespaces, cgroups and processes for the kernel tests, the benchmarks and the demonstration."""
