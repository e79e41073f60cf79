"""Benchmarks of the node beside its peers."""
