"""Mirrors the package: tests of scp/<stage>/ lie in tests/<stage>/."""
