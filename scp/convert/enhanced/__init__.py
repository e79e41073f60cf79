"""Collapses a classic series into Legacy Converted Enhanced objects, and gives it back."""
